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

import lzma

import pytest

from devstack.lab.guest import tree


@pytest.fixture
def packages(tmp_path):
    """A tree with a kernel of a few modules."""
    modules = tmp_path / 'usr/lib/modules/6.1-test/kernel/drivers'
    modules.mkdir(parents=True)
    (tmp_path / 'boot').mkdir()
    (tmp_path / 'boot/vmlinuz-6.1-test').write_bytes(b'kernel')
    for name, needs in (('dm-crypt', b'dm-mod'), ('dm-mod', b'base,bits'),
                        ('base', b''), ('bits', b'base')):
        module = b'ELF\0license=GPL\0depends=' + needs + b'\0name=x\0'
        (modules / f'{name}.ko.xz').write_bytes(lzma.compress(module))
    (modules / 'plain.ko').write_bytes(b'\0depends=\0')
    (modules / 'odd.ko').write_bytes(b'no module')
    return tree.Tree(tmp_path)


def test_modules_come_after_what_they_need(packages):
    names = [name for name, _ in packages.modules(['dm_crypt', 'plain'])]
    assert names == ['base', 'bits', 'dm_mod', 'dm_crypt', 'plain']


def test_modules_are_uncompressed(packages):
    assert packages.modules(['base']) == [
        ('base', b'ELF\0license=GPL\0depends=\0name=x\0')]


@pytest.mark.parametrize('name, reason', [
    ('absent', 'no module absent'),
    ('odd', 'does not tell which modules'),
])
def test_modules_that_cannot_be_had(packages, name, reason):
    with pytest.raises(tree.GuestError, match=reason):
        packages.modules([name])


def test_the_kernel_is_found(packages):
    image, modules = packages.kernel()
    assert image.read_bytes() == b'kernel'
    assert modules.name == '6.1-test'


def test_two_kernels_are_one_too_many(packages):
    (packages.root / 'boot/vmlinuz-6.2-test').touch()
    with pytest.raises(tree.GuestError, match='2 kernels'):
        packages.kernel()
