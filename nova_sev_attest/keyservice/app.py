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

"""The WSGI application of the key service."""

import http
import json

import falcon
from keystonemiddleware import auth_token
from oslo_db import exception as db_exc
from oslo_log import log as logging
from oslo_middleware import healthcheck
from oslo_middleware import http_proxy_to_wsgi
from oslo_middleware import request_id
from sqlalchemy import exc as sa_exc

from nova_sev_attest.conf import keyservice as conf_keyservice
from nova_sev_attest.keyservice import context
from nova_sev_attest.keyservice import errors
from nova_sev_attest.keyservice.handlers import firmwares
from nova_sev_attest.keyservice.handlers import launches
from nova_sev_attest.keyservice.handlers import owned_launches
from nova_sev_attest.keyservice.handlers import platforms
from nova_sev_attest.keyservice.handlers import policies
from nova_sev_attest.keyservice.handlers import root
from nova_sev_attest.keyservice import metrics
from nova_sev_attest.keyservice import microversion
from nova_sev_attest.keyservice import service as keyservice

LOG = logging.getLogger(__name__)

_JSON = 'application/json'
# In the environment of a request whose answer _ErrorShape leaves as it is.
_SHAPED = 'nova_sev_attest.error_shaped'
#: Paths that answer without a token.
_PUBLIC = frozenset(('/', '/v1', '/v1/', '/v1/openapi.json'))


class _Identity:
    """Falcon middleware: who asks, from what auth_token confirmed."""

    def process_request(self, req, resp):
        req.context.identity = context.RequestContext.from_environ(req.env)

    def process_resource(self, req, resp, resource, params):
        # oslo.log gives it with all that the request logs.
        req.context.identity.resource_uuid = params.get('launch_id')


class _ErrorShape:
    """WSGI middleware: every error is an API-SIG document.

    Errors of the application have that shape; those of the middleware around
    it (a token that is not valid, keystone away) get it here.
    """

    def __init__(self, application):
        self._application = application

    def __call__(self, environ, start_response):
        replaced = []

        def start(status, headers, exc_info=None):
            code = int(status.split(' ', 1)[0])
            if code < 400 or environ.get(_SHAPED):
                return start_response(status, headers, exc_info)
            body = _render(self._error(code), environ)
            replaced.append(body)
            kept = [pair for pair in headers if pair[0].lower() not in (
                'content-type', 'content-length')]
            start_response(status, kept + [
                ('Content-Type', _JSON),
                ('Content-Length', str(len(body)))], exc_info)
            return lambda data: None

        answer = self._application(environ, start)
        if not replaced:
            return answer
        close = getattr(answer, 'close', None)
        if close is not None:
            close()
        return [] if environ['REQUEST_METHOD'] == 'HEAD' else replaced

    @staticmethod
    def _error(code):
        cls = errors.for_status(code)
        if code == 401:
            return cls('unauthorized', 'The request needs a valid keystone '
                                       'token in the header X-Auth-Token.')
        if code == 503:
            return cls('identity_unavailable',
                       'Keystone cannot be asked to validate the token; try '
                       'again later.')
        return cls('http_error', http.HTTPStatus(code).phrase + '.')


def _render(error, environ, status=None):
    return json.dumps(errors.document(
        error, environ.get('openstack.request_id'), status)).encode()


def _answer(req, resp, error, status=None):
    resp.status = falcon.code_to_http_status(status or error.status)
    resp.content_type = _JSON
    resp.data = _render(error, req.env, status)
    req.env[_SHAPED] = True


def _service_error(req, resp, error, params):
    if error.status >= 500:
        LOG.error('%(method)s %(path)s: %(error)s', {
            'method': req.method, 'path': req.path, 'error': error.detail})
    else:
        LOG.info('%(method)s %(path)s: %(code)s: %(error)s', {
            'method': req.method, 'path': req.path, 'code': error.code,
            'error': error.detail})
    _answer(req, resp, error)


def _falcon_error(req, resp, error, params):
    status = error.status_code
    words = {404: 'not_found', 405: 'method_not_allowed'}
    made = errors.for_status(status)(
        words.get(status, 'request_invalid'),
        error.description or error.title or 'The request is refused.')
    for name, value in (error.headers or {}).items():
        resp.set_header(name, value)
    _answer(req, resp, made, status)


def _database_error(req, resp, error, params):
    # The driver's own words; the others hold the statement's parameters.
    cause = getattr(error, 'inner_exception', error)
    cause = getattr(cause, 'orig', None)
    LOG.error('%(method)s %(path)s: %(type)s: %(cause)s', {
        'method': req.method, 'path': req.path,
        'type': type(error).__name__, 'cause': cause})
    _answer(req, resp, errors.Unavailable(
        'database_unavailable',
        'The key service cannot use its database now; try again later.'))


def _unexpected(req, resp, error, params):
    LOG.exception('%(method)s %(path)s failed', {
        'method': req.method, 'path': req.path})
    _answer(req, resp, errors.Internal(
        'internal_error',
        'The key service failed; its log says why under the request id.'))


def _api(service):
    api = falcon.App(middleware=[metrics.Operations(), _Identity(),
                                 microversion.Negotiation()])
    api.req_options.strip_url_path_trailing_slash = True
    # Later ones are tried first.
    api.add_error_handler(Exception, _unexpected)
    api.add_error_handler((db_exc.DBError, sa_exc.DBAPIError),
                          _database_error)
    api.add_error_handler(falcon.HTTPError, _falcon_error)
    api.add_error_handler(errors.ServiceError, _service_error)
    api.add_route('/', root.Versions())
    api.add_route('/v1', root.Version())
    api.add_route('/v1/openapi.json', root.Document())
    api.add_route('/v1/firmwares', firmwares.Collection(service))
    api.add_route('/v1/firmwares/{sha256}', firmwares.Item(service))
    api.add_route('/v1/policies', policies.Collection(service))
    api.add_route('/v1/policies/{policy_id}', policies.Item(service))
    api.add_route('/v1/policies/{policy_id}/revocation',
                  policies.Revocation(service))
    api.add_route('/v1/policies/{policy_id}/revisions',
                  policies.Revisions(service))
    api.add_route('/v1/policies/{policy_id}/revisions/{revision}',
                  policies.Revision(service))
    api.add_route('/v1/platforms', platforms.Collection(service))
    api.add_route('/v1/platforms/{platform_id}', platforms.Item(service))
    api.add_route('/v1/launches', launches.Collection(service))
    api.add_route('/v1/launches/{launch_id}', launches.Item(service))
    api.add_route('/v1/launches/{launch_id}/evidence',
                  launches.Evidence(service))
    api.add_route('/v1/launches/{launch_id}/outcome',
                  launches.Outcome(service))
    api.add_route('/v1/launches/{launch_id}/certificates',
                  owned_launches.Certificates(service))
    api.add_route('/v1/launches/{launch_id}/session',
                  owned_launches.Session(service))
    api.add_route('/v1/launches/{launch_id}/secret',
                  owned_launches.Secret(service))
    api.add_route('/v1/launches/{launch_id}/decision',
                  owned_launches.Decision(service))
    api.add_route('/v1/launches/{launch_id}/events',
                  owned_launches.Events(service))
    return api


def make(service):
    """The application with all its middleware, from a Service."""
    conf = service.conf
    api = _api(service)
    guarded = auth_token.AuthProtocol(api, {
        'oslo_config_config': conf,
        'oslo_config_project': conf_keyservice.PROJECT,
        # Nothing behind it looks whether a token was confirmed.
        'delay_auth_decision': False,
    })
    ready = healthcheck.Healthcheck(None, conf)
    alive = healthcheck.Healthcheck(None, {'backends': []})

    def route(environ, start_response):
        path = environ.get('PATH_INFO', '')
        if path == '/healthcheck':
            return ready(environ, start_response)
        if path == '/healthcheck/live':
            return alive(environ, start_response)
        if path in _PUBLIC or not path:
            return api(environ, start_response)
        return guarded(environ, start_response)

    application = _ErrorShape(route)
    application = request_id.RequestId(application, conf)
    application = metrics.MeasuredRequests(application, service.metrics)
    return http_proxy_to_wsgi.HTTPProxyToWSGI(application, conf)


def load(config_files=None):
    """The application as configured, with logging set up.

    :param config_files: None: where oslo.config looks by default
    """
    conf = conf_keyservice.load(config_files=config_files)
    logging.setup(conf, conf_keyservice.PROJECT)
    return make(keyservice.Service(conf))
