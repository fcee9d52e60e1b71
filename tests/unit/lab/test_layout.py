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

import pathlib

import pytest

from devstack.lab import layout as lab_layout


def test_defaults_are_below_the_checkout():
    found = lab_layout.Layout.from_environment({})
    assert found.lab_dir == lab_layout.CHECKOUT / '.lab'
    assert found.venv == lab_layout.CHECKOUT / '.venv'
    assert found.port_base == 25000
    assert (lab_layout.CHECKOUT / 'setup.cfg').exists()


def test_environment_moves_everything():
    found = lab_layout.Layout.from_environment({
        'LAB_DIR': '/x/lab', 'LAB_VENV': '/x/venv',
        'LAB_PORT_BASE': '31000'})
    assert found.log == pathlib.Path('/x/lab/log')
    assert found.bin('python') == pathlib.Path('/x/venv/bin/python')
    assert found.url('nova-api') == 'http://127.0.0.1:31002'


@pytest.mark.parametrize('text', ['x', '-1', '80', '65530', '1e4'])
def test_port_base_out_of_range_is_refused(text):
    with pytest.raises(ValueError, match=f'LAB_PORT_BASE.*{text}'):
        lab_layout.Layout.from_environment({'LAB_PORT_BASE': text})


def test_ports_differ():
    assert len(set(lab_layout.PORTS.values())) == len(lab_layout.PORTS)


def test_two_labs_share_no_socket():
    one, two = (lab_layout.Layout.from_environment({'LAB_DIR': folder})
                for folder in ('/x/one', '/x/two'))
    assert one.run_dir != two.run_dir
    assert one.computes[0].libvirt_uri != two.computes[0].libvirt_uri


def test_socket_paths_are_short_however_long_the_folder_is():
    found = lab_layout.Layout.from_environment({'LAB_DIR': '/' + 'x' * 200})
    sockets = [found.supervisor_socket]
    for host in found.computes:
        sockets += [host.platform_socket,
                    host.run / 'libvirt' / 'libvirt-admin-sock']
    assert max(len(str(path)) for path in sockets) <= 107


@pytest.mark.parametrize('text', ['x', '0', '10', '-1'])
def test_number_of_computes_out_of_range_is_refused(text):
    with pytest.raises(ValueError, match=f'LAB_COMPUTES.*{text}'):
        lab_layout.Layout.from_environment({'LAB_COMPUTES': text})


def test_transport():
    for text, transport in ((None, 'http'), ('', 'http'), ('http', 'http'),
                            ('rpc', 'rpc')):
        assert lab_layout.Layout.from_environment(
            {} if text is None else {'LAB_TRANSPORT': text}
        ).transport == transport
    with pytest.raises(ValueError, match="LAB_TRANSPORT.*http, rpc.*'amqp'"):
        lab_layout.Layout.from_environment({'LAB_TRANSPORT': 'amqp'})


def test_compute_hosts_share_nothing_of_their_own():
    hosts = lab_layout.Layout.from_environment(
        {'LAB_COMPUTES': '3', 'LAB_DIR': '/x'}).computes
    assert [host.name for host in hosts] == [
        'compute1', 'compute2', 'compute3']
    for name in ('uuid', 'chip', 'run', 'libvirt_uri', 'state', 'log',
                 'configuration'):
        assert len({str(getattr(host, name)) for host in hosts}) == 3
    assert [host.service('libvirtd') for host in hosts] == [
        'libvirtd', 'libvirtd-2', 'libvirtd-3']
