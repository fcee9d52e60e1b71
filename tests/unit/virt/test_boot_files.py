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

import os
import types
from unittest import mock

from nova import exception
from nova.virt.libvirt import imagecache
from oslo_concurrency import lockutils
from oslo_config import fixture as config_fixture
import pytest

from nova_sev_attest.virt import boot_files
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import exceptions
from tests.unit.virt import fakes

SIZES = {'k': 9, 'r': 5}


@pytest.fixture
def settings():
    with config_fixture.Config(boot_files.CONF) as fixture:
        yield fixture


@pytest.fixture
def files(tmp_path, settings):
    """What a host has of a kernel of nine bytes and an initrd of five."""
    settings.config(instances_path=str(tmp_path))
    (tmp_path / '_base').mkdir()
    found = types.SimpleNamespace(
        kernel=tmp_path / 'kernel', initrd=tmp_path / 'ramdisk',
        cached_kernel=tmp_path / '_base' / imagecache.get_cache_fname('k'),
        cached_initrd=tmp_path / '_base' / imagecache.get_cache_fname('r'))
    found.kernel.write_bytes(b'9' * 9)
    found.initrd.write_bytes(b'5' * 5)
    found.cached_kernel.write_bytes(b'9' * 9)
    found.cached_initrd.write_bytes(b'5' * 5)
    return found


@pytest.fixture
def launch(tmp_path):
    instance = fakes.make_instance()
    instance.kernel_id, instance.ramdisk_id = 'k', 'r'
    return types.SimpleNamespace(
        instance=instance, purpose='boot', domain=domain_xml.parse(
            fakes.DOMAIN.replace('/i/', f'{tmp_path}/')))


def look(launch, sizes=SIZES):
    images = mock.Mock()
    images.get.side_effect = lambda _, image: {'size': sizes[image]}
    boot_files.discard_partial(None, images, launch)


def cut(*paths):
    for path in paths:
        os.truncate(path, 3)


def test_whole_files_stay(files, launch):
    look(launch)
    assert all(path.exists() for path in vars(files).values())


@pytest.mark.parametrize('parts, text', [
    (['kernel'], "image's kernel in part only"),
    (['initrd'], "image's initrd in part only"),
    (['kernel', 'initrd'], "image's kernel and initrd in part only")])
def test_what_is_not_whole_is_removed(files, launch, parts, text):
    gone = [getattr(files, prefix + part) for part in parts
            for prefix in ('', 'cached_')]
    cut(*gone)
    with pytest.raises(exceptions.AttestationFault, match=text) as fault:
        look(launch)
    assert len(str(fault.value)) <= exceptions.MAX_FAULT
    assert [path for path in vars(files).values() if not path.exists()] == (
        [path for path in vars(files).values() if path in gone])


def test_only_the_servers_copy(files, launch):
    cut(files.kernel)
    with pytest.raises(exceptions.AttestationFault):
        look(launch)
    assert not files.kernel.exists() and files.cached_kernel.exists()


def test_what_another_server_is_about_to_fetch_stays(files, launch):
    cut(files.cached_kernel)
    look(launch)
    assert files.cached_kernel.exists()


def test_who_fetches_it_just_now_is_waited_for(files, launch, tmp_path):
    cut(files.kernel, files.cached_kernel)
    held = []

    class Lock:
        def __init__(self, name, lock_file_prefix=None, external=False,
                     lock_path=None, *_, **__):
            held.append((name, lock_file_prefix, external, lock_path))

        def __enter__(self):
            # The other has done meanwhile.
            files.cached_kernel.write_bytes(b'9' * 9)

        def __exit__(self, *_):
            assert not files.kernel.exists()

    with mock.patch.object(lockutils, 'lock', Lock), pytest.raises(
            exceptions.AttestationFault):
        look(launch)
    assert held == [(imagecache.get_cache_fname('k'), 'nova-', True,
                     str(tmp_path / 'locks'))]
    assert files.cached_kernel.exists()


def test_files_that_are_gone_are_left_alone(files, launch):
    for path in vars(files).values():
        path.unlink()
    look(launch)


@pytest.mark.parametrize('failure', [
    exception.ImageNotFound(image_id='k'), RuntimeError('no token')])
def test_without_the_image_service_the_denial_stands(files, launch, failure):
    cut(files.kernel, files.initrd)
    images = mock.Mock()
    images.get.side_effect = failure
    boot_files.discard_partial(None, images, launch)
    assert files.kernel.exists() and files.initrd.exists()


def test_image_whose_size_is_not_known(files, launch):
    cut(files.kernel)
    look(launch, {'k': None, 'r': None})
    assert files.kernel.exists()


def test_server_without_a_kernel_asks_for_no_image(launch):
    launch.instance.kernel_id = launch.instance.ramdisk_id = ''
    images = mock.Mock()
    boot_files.discard_partial(None, images, launch)
    images.get.assert_not_called()


@pytest.mark.parametrize('option, own', [
    ('rescue_kernel_id', 'k'), ('rescue_ramdisk_id', 'r')])
def test_rescue_with_boot_files_of_the_hosts(files, launch, settings, option,
                                             own):
    settings.config(group='libvirt', **{option: 'host'})
    launch.purpose = 'rescue'
    look(launch, SIZES | {own: None, 'host': SIZES[own]})
    with pytest.raises(exceptions.AttestationFault):
        look(launch, SIZES | {own: None, 'host': 100})
