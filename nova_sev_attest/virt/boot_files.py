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

"""Boot files that this host has in part only.

Nova fetches a kernel or an initrd straight to its place in the image cache,
and takes whatever is there for whole (fetch_raw_image in
nova/virt/libvirt/utils.py; of disks, only what is complete gets there). A
nova-compute that was killed over it leaves a part, with which every later
server of that image would be measured, and denied, for ever.
"""

import os

from nova import conf
from nova import utils
from nova.virt.libvirt import imagecache
from oslo_log import log as logging

from nova_sev_attest.client import launches
from nova_sev_attest.virt import domain_xml
from nova_sev_attest.virt import exceptions

CONF = conf.CONF
LOG = logging.getLogger(__name__)


def discard_partial(context, image_api, launch):
    """Remove a denied launch's boot files where they are not whole.

    Whole is what has as many bytes as the image service says. Nova fetches
    what was removed when it is needed again.

    :param context: RequestContext of the boot
    :param image_api: nova.image.glance.API
    :param launch: steps.Launch, whose guest is gone
    :raises exceptions.AttestationFault: something was removed, so the denial
        was for what this host has, not for what the owner chose
    """
    inputs = domain_xml.boot_inputs(launch.domain)
    kernel, initrd = _images(launch)
    partial = [
        what for what, image, path in (('kernel', kernel, inputs.kernel),
                                       ('initrd', initrd, inputs.initrd))
        if image and path and _discard(
            what, path, image, _size(context, image_api, image),
            launch.instance)]
    if partial:
        raise exceptions.AttestationFault(
            instance_uuid=launch.instance.uuid,
            reason=f'it had the image\'s {" and ".join(partial)} in part '
                   f'only; what it had is removed, try again')


def _images(launch):
    """The ids of kernel and initrd, as Nova chooses them."""
    instance = launch.instance
    kernel, initrd = instance.kernel_id, instance.ramdisk_id
    if launch.purpose == launches.RESCUE:
        kernel = CONF.libvirt.rescue_kernel_id or kernel
        initrd = CONF.libvirt.rescue_ramdisk_id or initrd
    return kernel, initrd


def _size(context, image_api, image):
    """Bytes of an image; None where the image service does not tell."""
    try:
        return image_api.get(context, image)['size']
    except Exception as error:
        # It may be deleted by now, or the boot have no user's token. The
        # denial stands.
        LOG.warning('The size of image %(image)s cannot be looked up: '
                    '%(error)s', {'image': image, 'error': error})
        return None


def _discard(what, path, image, size, instance):
    """Remove the server's copy, and the cache's; whether it was not whole."""
    if not size or not _is_partial(path, size):
        return False
    name = imagecache.get_cache_fname(image)
    cached = os.path.join(CONF.instances_path,
                          CONF.image_cache.subdirectory_name, name)

    # Nova's own lock: who fetches it just now holds it.
    @utils.synchronized(name, external=True, lock_path=os.path.join(
        CONF.instances_path, 'locks'))
    def remove():
        for copy in (cached, path):
            if _is_partial(copy, size):
                os.unlink(copy)
                LOG.error('%(copy)s was not whole, and was removed: the '
                          '%(what)s is image %(image)s, of %(size)s bytes.',
                          {'copy': copy, 'what': what, 'image': image,
                           'size': size}, instance=instance)

    remove()
    return True


def _is_partial(path, size):
    try:
        return os.path.getsize(path) < size
    except FileNotFoundError:
        return False
