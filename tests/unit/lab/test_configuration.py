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

import configparser
import dataclasses
import pathlib
import shutil
import stat
import subprocess

import pytest
import yaml

from devstack.lab import configuration
from devstack.lab import credentials

TEMPLATES = pathlib.Path(configuration.__file__).with_name('templates')


@pytest.fixture
def written(layout):
    try:
        configuration.write(layout)
        yield layout
    finally:
        shutil.rmtree(layout.run_dir, ignore_errors=True)


def read(path):
    parser = configparser.RawConfigParser(allow_no_value=True, strict=True)
    with path.open() as source:
        parser.read_file(source)
    return parser


@pytest.fixture(autouse=True)
def run_dir_may_be_made(layout):
    try:
        layout.run_dir.mkdir(parents=True, exist_ok=True)
    except PermissionError:
        pytest.skip(f'{layout.run_dir.parent} is not ours to write to')


def test_every_file_is_private_and_complete(written):
    files = [path for path in written.etc.rglob('*')
             if path.is_file() and path.suffix in ('.conf', '.cnf', '.sql')]
    # One for each template and each further host, and the key service's.
    assert len(files) == (
        len(list(TEMPLATES.glob('*.*'))) + written.compute_count)
    for path in files:
        assert '${' not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_ini_files_have_no_section_or_option_twice(written):
    for path in written.etc.rglob('*.conf'):
        if path.parent.name != 'rabbitmq':
            assert read(path).sections()


def test_nova_compute_reaches_no_database(written):
    password = credentials.load(written)['database']
    for name in ('nova.conf', 'nova-compute.conf', 'nova-compute-2.conf'):
        text = (written.etc / 'nova' / name).read_text()
        assert password not in text
        assert not read(written.etc / 'nova' / name).has_section('database')


def test_nova_compute_loads_our_driver_at_the_labs_libvirt(written):
    for host in written.computes:
        conf = read(host.configuration)
        default = conf['DEFAULT']
        assert default['compute_driver'] == 'sev_attest.LibvirtDriver'
        assert default['host'] == host.name
        assert conf['libvirt']['connection_uri'] == host.libvirt_uri
        assert conf['sev_attest']['mode'] == 'required'
        assert conf['sev_attest']['username'] == host.user == (
            f'nova-sev-attest-{host.name}')


def test_hosts_ask_over_http_or_over_rpc(layout):
    conf = layout.etc / 'attestation' / 'attestation.conf'
    for transport in ('http', 'rpc', 'http'):
        configuration.write(dataclasses.replace(layout, transport=transport))
        for host in layout.computes:
            assert read(host.configuration)['sev_attest']['transport'] == (
                transport)
        # Of the same broker as Nova's, which the driver takes it from.
        nova = read(layout.etc / 'nova' / 'nova.conf')
        assert read(conf).get('DEFAULT', 'transport_url', fallback=None) == (
            nova['DEFAULT']['transport_url'] if transport == 'rpc' else None)


def test_compute_hosts_share_the_instances_and_no_other_folder(written):
    first, second = (read(host.configuration) for host in written.computes)
    for section, option, is_shared in (
            ('DEFAULT', 'instances_path', True),
            ('DEFAULT', 'state_path', False),
            ('oslo_concurrency', 'lock_path', False)):
        values = {conf[section][option] for conf in (first, second)}
        assert len(values) == (1 if is_shared else 2), option


def test_the_emulated_root_is_named_and_keys_are_outside_the_database(
        written):
    conf = read(written.etc / 'attestation' / 'attestation.conf')
    assert conf['trust']['extra_anchors'] == (
        f'emulated={written.emulated_root}')
    assert conf['sealing']['key_repository'] == str(written.sealing_keys)


def test_everything_listens_on_loopback_only(written):
    mariadb = read(written.etc / 'mariadb' / 'mariadb.cnf')['mariadbd']
    assert mariadb['bind-address'] == '127.0.0.1'
    assert mariadb['port'] == str(written.port('mariadb'))
    rabbitmq = (written.etc / 'rabbitmq' / 'rabbitmq.conf').read_text()
    assert f'= 127.0.0.1:{written.port("rabbitmq")}\n' in rabbitmq


def test_clouds_have_each_user_in_its_project(written):
    clouds = yaml.safe_load(written.clouds.read_text())['clouds']
    assert {name: cloud['auth']['project_name']
            for name, cloud in clouds.items()} == {
        'admin': 'admin', 'owner': 'owner', 'auditor': 'owner',
        'other': 'other'}
    passwords = credentials.load(written)
    for name, cloud in clouds.items():
        assert cloud['auth']['username'] == name
        assert cloud['auth']['password'] == passwords[name]


def test_openrc_chooses_the_owner_or_who_is_named(written):
    for arguments, user in (('', 'owner'), (' other', 'other')):
        done = subprocess.run(
            ['bash', '-c', f'. {written.openrc}{arguments}; echo "$OS_CLOUD '
             f'$OS_CLIENT_CONFIG_FILE"'],
            capture_output=True, text=True, check=True)
        assert done.stdout == f'{user} {written.clouds}\n'


def test_writing_again_changes_nothing(written):
    before = {path: path.read_text() for path in written.etc.rglob('*')
              if path.is_file()}
    configuration.write(written)
    assert {path: path.read_text() for path in written.etc.rglob('*')
            if path.is_file()} == before


def test_a_template_that_names_something_unknown_is_refused(monkeypatch,
                                                            tmp_path):
    (tmp_path / 'x.conf').write_text('a = ${nothing}\n')
    monkeypatch.setattr(configuration, '_TEMPLATES', tmp_path)
    with pytest.raises(KeyError, match='nothing'):
        configuration.render('x.conf', {})
