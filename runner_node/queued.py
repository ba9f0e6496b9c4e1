"""Queued calls that a runner holds: run, and handed in however their attempt ends.

What becomes of a call that got no container is for the API node to say: the attempt is handed in with its
reason. Only when the runner itself is at fault (no room in time, engine away, stopping) the call is given
back, its attempt uncounted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

import msgspec

from runner_node import wishes
from runner_node.calls import header_list
from runner_node.hot_container import StartFailed
from runner_node.job import Before, Job, route_job
from runner_node.leases import Held, Leases
from runner_node.reasons import End, end_of, end_of_start
from shared_models import errors, times
from shared_models.call import Reason

if TYPE_CHECKING:
    from runner_node.agent import Agent

log = logging.getLogger(__name__)

PAUSE = 0.25
"""Seconds at most before the place of a call that was given back is taken: not at once into the same wall."""
_NOT_OURS = (errors.Unavailable, errors.Unauthorized, errors.RunnerRefused)


class QueuedCalls:
    """Runs those that are leased."""

    def __init__(self, agent: Agent, leases: Leases) -> None:
        self._agent = agent
        self._leases = leases

    async def run(self, held: Held) -> None:
        """One call, to the end of its attempt."""
        leased, call, agent = held.leased, held.leased.call, self._agent

        async def before(job: Job) -> None:
            job.started = time.time()
            # As Fn's runners do: with the configuration of a cold call, and the time that its end will name.
            running = msgspec.structs.replace(job.call, started_at=times.to_text(job.started))
            await agent.data.start(msgspec.structs.replace(leased, call=running))
            self._leases.started(held)

        try:
            await self._submit(held, before)
        except errors.LeaseLost:
            log.warning("call %s: the lease was lost before the start, dropped", call.id)
            self._leases.forget(held)
        except StartFailed as failure:
            if isinstance(failure.error, errors.EngineUnavailable):
                await self._give_back(held, failure.error)
            else:
                self._hand_in(held, end_of_start(failure.error), failure.output)
        except _NOT_OURS as exc:
            if not held.recorded:
                await self._give_back(held, exc)
        except errors.FnError as exc:
            if not held.recorded:
                self._hand_in(held, _end_unstarted(exc))
        except Exception:
            log.exception("call %s failed in the agent", call.id)
            self._leases.forget(held)

    async def _submit(self, held: Held, before: Before) -> None:
        leased, call, agent = held.leased, held.leased.call, self._agent
        target = await agent.target_of(call)
        headers = header_list(call)
        # An unmodified Fn API node does not say which attempt it is.
        headers = (
            wishes.with_attempt(headers, leased.lease.attempt) if leased.lease else wishes.foreign(headers)
        )
        if call.path:
            job = route_job(call, target, headers, call.payload)
        else:
            job = Job(
                call=call, target=target, headers=headers, body=call.payload, sync=False,
                patience=target.timeout,
            )  # fmt: skip
        job.token, job.before = leased.key.token, before
        job.age = leased.lease.age if leased.lease else 0.0
        job.stored = lambda taken: self._leases.forget(held)
        held.job = job
        await agent.run(job)

    def _hand_in(self, held: Held, end: End, output: bytes = b"") -> None:
        """The attempt ended without a run: the API node says whether there is another."""
        call = held.leased.call
        log.warning("call %s: attempt %d: %s", call.id, max(call.attempt, 1), end.error)
        self._agent.refuse(call, end, held.leased.key.token, output, lambda taken: self._leases.forget(held))

    async def _give_back(self, held: Held, why: errors.FnError) -> None:
        await self._leases.give_back([held.leased.key], why)
        self._leases.forget(held)
        await asyncio.sleep(random.uniform(0, PAUSE))


def _end_unstarted(exc: errors.FnError) -> End:
    # What is no error of a kind is a mistake of ours, or of the engine's: it may be gone next time.
    return end_of(exc, Reason.NOT_STARTED if type(exc) is errors.FnError else None)
