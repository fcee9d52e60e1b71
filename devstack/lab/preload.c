/* Licensed under the Apache License, Version 2.0 (the "License"); you may
 * not use this file except in compliance with the License. You may obtain
 * a copy of the License at
 *
 *      http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
 * WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
 * License for the specific language governing permissions and limitations
 * under the License.
 */

/* What libvirtd asks of the machine directly, where a machine without SEV
 * would give the wrong answer. Loaded with LD_PRELOAD into libvirtd only. */

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SEV_LEAF 0x8000001fu
/* Number of encrypted guests, and the first ASID that is not for SEV-ES. */
#define SEV_GUESTS 509u
#define SEV_MIN_ASID 100u

/* In the place of libvirt's own (src/util/virhostcpu.c). */
int
virHostCPUX86GetCPUID(uint32_t leaf, uint32_t subleaf, uint32_t *eax,
                      uint32_t *ebx, uint32_t *ecx, uint32_t *edx)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;

    if (leaf == SEV_LEAF) {
        c = SEV_GUESTS;
        d = SEV_MIN_ASID;
    } else {
        __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d)
                                 : "0"(leaf), "2"(subleaf));
    }
    if (eax)
        *eax = a;
    if (ebx)
        *ebx = b;
    if (ecx)
        *ecx = c;
    if (edx)
        *edx = d;
    return 0;
}

/* A container may not raise its own memlock limit. Guests of the emulated
 * platform lock nothing, so a refusal is no reason to fail their start. */
int
prlimit(pid_t pid, enum __rlimit_resource resource,
        const struct rlimit *fresh, struct rlimit *old)
{
    long done = syscall(SYS_prlimit64, pid, resource, fresh, old);

    if (done < 0 && errno == EPERM && fresh && resource == RLIMIT_MEMLOCK)
        return 0;
    return (int)done;
}

int
setrlimit(enum __rlimit_resource resource, const struct rlimit *fresh)
{
    return prlimit(0, resource, fresh, 0);
}

int
setrlimit64(enum __rlimit_resource resource, const struct rlimit64 *fresh)
{
    return prlimit(0, resource, (const struct rlimit *)fresh, 0);
}

int
prlimit64(pid_t pid, enum __rlimit_resource resource,
          const struct rlimit64 *fresh, struct rlimit64 *old)
{
    return prlimit(pid, resource, (const struct rlimit *)fresh,
                   (struct rlimit *)old);
}
