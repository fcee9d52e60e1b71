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

import dataclasses
import graphlib

import pytest

from devstack.lab import credentials
from devstack.lab import lab as lab_module
from devstack.lab import layout as lab_layout
from devstack.lab import services
from nova_sev_attest import messaging


@pytest.fixture
def table(layout):
    return services.table(layout)


@pytest.fixture
def plan(layout):
    return lab_module.Lab(layout, print).plan(0)


def test_every_need_is_something_that_is_done(plan):
    names = {step.name for step in plan}
    assert len(names) == len(plan)
    for step in plan:
        assert set(step.needs) <= names


def test_nobody_waits_for_himself(plan):
    graphlib.TopologicalSorter(
        {step.name: step.needs for step in plan}).prepare()


def test_ports_are_those_of_the_layout(table, layout):
    ports = {service.port for service in table.values()} - {None}
    # RabbitMQ has a second one.
    assert ports == {layout.port(name) for name in lab_layout.PORTS
                     if name != 'rabbitmq-distribution'}


def test_no_password_is_in_arguments_or_environment(table, layout):
    secrets = credentials.load(layout).values()
    for service in table.values():
        text = repr((service.command, service.environment))
        assert not any(secret in text for secret in secrets)


def test_the_key_service_comes_after_the_platform_it_trusts(plan):
    by_name = {step.name: step for step in plan}
    assert 'platform' in by_name['attestation'].needs
    assert 'platform' in by_name['libvirtd'].needs


def test_nova_compute_is_stopped_before_what_it_needs(layout):
    lab = lab_module.Lab(layout, print)
    for name in ('libvirtd', 'nova-conductor', 'rabbitmq', 'mariadb',
                 'keystone'):
        assert 'nova-compute' in lab.needed_by(name)
    assert lab.needed_by('nova-compute') == ()


def test_the_key_service_runs_by_its_sample_configuration(table, layout):
    service = table['attestation']
    program, _, sample = service.command
    assert program.name == 'uwsgi' and sample.is_file()
    assert service.environment['NOVA_SEV_ATTEST_WORKERS'] == 2
    assert not service.stops_as_group


def test_the_rpc_server_runs_where_hosts_use_it(table, layout, monkeypatch):
    assert 'attestation-rpc' not in table
    over_rpc = services.table(dataclasses.replace(layout, transport='rpc'))
    assert set(over_rpc) - set(table) == {'attestation-rpc'}
    # Owners still have the REST API.
    assert over_rpc['attestation'].command == table['attestation'].command
    service = over_rpc['attestation-rpc']
    assert service.command[0].name == 'nova-sev-attest-rpc'
    assert service.port is None and 'rabbitmq' in service.needs
    asked = []
    monkeypatch.setattr(services.probes, 'consumer',
                        lambda layout, queue: asked.append(queue))
    assert service.probe(0) is None
    assert asked == [messaging.TOPIC]
