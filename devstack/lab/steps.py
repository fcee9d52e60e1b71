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

"""Do things in the order that they need each other, as early as possible."""

import collections.abc
import concurrent.futures
import dataclasses
import graphlib
import threading


@dataclasses.dataclass(frozen=True)
class Step:
    """Something to be done once others are done.

    :ivar action: called with the event that is set when another step
        failed; a step that waits gives up then.
    """

    name: str
    action: collections.abc.Callable[[threading.Event], None]
    needs: tuple = ()


def with_needs(steps, names):
    """The named steps and all that they need.

    :raises KeyError: when there is no step of a name.
    """
    known = {step.name: step for step in steps}
    wanted = []
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in wanted:
            wanted.append(name)
            pending.extend(known[name].needs)
    return [step for step in steps if step.name in wanted]


def run(steps):
    """Run steps side by side, each when all that it needs is done.

    :raises graphlib.CycleError: when steps need each other in a circle.
    :raises Exception: the first that a step raised, once those that were
        under way have ended.
    """
    known = {step.name: step for step in steps}
    order = graphlib.TopologicalSorter(
        {step.name: [need for need in step.needs if need in known]
         for step in steps})
    order.prepare()
    give_up = threading.Event()
    running = {}
    with concurrent.futures.ThreadPoolExecutor(len(steps) or 1) as pool:
        try:
            while order.is_active():
                for name in order.get_ready():
                    task = pool.submit(known[name].action, give_up)
                    running[task] = name
                done, _ = concurrent.futures.wait(
                    running,
                    return_when=concurrent.futures.FIRST_COMPLETED)
                for task in done:
                    name = running.pop(task)
                    task.result()
                    order.done(name)
        finally:
            # Set also after success, when nobody looks at it any more.
            give_up.set()
