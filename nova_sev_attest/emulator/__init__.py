# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""A software SEV platform for machines without SEV.

A root daemon plays the secure processor (its keys, certificates and launch
commands); a wrapper in the place of QEMU plays what a kernel and a QEMU with
SEV would do with it. libvirtd and QEMU stay as they are.

It proves nothing about a machine: memory is not encrypted and the root of
the certificates is made here. Nothing trusts it unless it is named.

The package imports nothing of ``nova_sev_attest`` but itself, so that a
wrong belief about a format is not shared by both sides of the protocol. The
daemon needs cryptography; all else needs the standard library only.
"""
