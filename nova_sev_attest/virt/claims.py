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

"""What this host launched, in its own words.

Claims are hints: the key service looks at them only after the evidence
came, only to explain a denial, and only where the measurement confirms
them. So what cannot be read is left out, and nothing fails for it.
"""

from concurrent import futures
import hashlib
import os
import stat
import time

from oslo_log import log as logging

from nova_sev_attest.virt import domain_xml

LOG = logging.getLogger(__name__)

MAX_FILE = 1024 * 1024 * 1024
_CHUNK = 1024 * 1024


def begin(domain, deadline):
    """Begin to hash what a domain is to boot, while its guest is started.

    :param domain: the <domain> element, which need not be active
    :param deadline: Deadline
    :returns: dict for gather(): Future by path
    """
    inputs = domain_xml.boot_inputs(domain)
    executor = futures.ThreadPoolExecutor(1, 'sev-attest-hash')
    begun = {}
    try:
        for path in (inputs.kernel, inputs.initrd):
            if path is not None:
                begun[path] = executor.submit(_sha256, path, deadline)
    except RuntimeError:
        # No more threads. What was not begun is hashed when it is needed.
        LOG.debug('There is no thread to hash boot files.')
    finally:
        executor.shutdown(wait=False)
    return begun


def gather(domain, deadline, begun):
    """The claims about a launched domain.

    :param domain: the active <domain> element
    :param deadline: Deadline; files that cannot be hashed by it are left
        out
    :param begun: what begin() gave
    :returns: dict of hexadecimal SHA-256 values and the number of vCPUs.
        The command line is hashed with a closing NUL, as QEMU's table of
        kernel hashes has it (target/i386/sev.c).
    """
    inputs = domain_xml.boot_inputs(domain)
    claims = {}
    if inputs.vcpus is not None:
        claims['vcpus'] = inputs.vcpus
    _claim_file(claims, 'firmware_sha256', inputs.firmware, deadline,
                begun)
    if inputs.kernel is not None:
        _claim_file(claims, 'kernel_sha256', inputs.kernel, deadline, begun)
        _claim_file(claims, 'initrd_sha256', inputs.initrd, deadline, begun)
        text = inputs.command_line or ''
        claims['command_line_sha256'] = hashlib.sha256(
            text.encode('utf-8') + b'\0').hexdigest()
    return claims


def _claim_file(claims, name, path, deadline, begun):
    if path is None:
        return
    try:
        claims[name] = (begun[path].result() if path in begun
                        else _sha256(path, deadline))
    except (OSError, _NotClaimed) as error:
        LOG.info('No claim %(name)s: %(path)s: %(error)s',
                 {'name': name, 'path': path, 'error': error})


class _NotClaimed(Exception):
    """A file that is not worth the time."""


def _sha256(path, deadline):
    digest = hashlib.sha256()
    size = 0
    # Opening a pipe or a device could block or worse.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise _NotClaimed('not a regular file')
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            if size > MAX_FILE or deadline.has_passed():
                raise _NotClaimed('too long to hash')
            digest.update(chunk)
            # Lets other green threads run where nova-compute has them.
            time.sleep(0)
    return digest.hexdigest()
