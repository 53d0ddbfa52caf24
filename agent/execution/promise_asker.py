"""The executor that asks the voters for promises, so that the lease goes on while the coordinator commits nothing. It decides nothing.

A round asks every voter at once, each with a short deadline, under one nonce. The deadline moves as soon as enough have promised, not at
the end of the round: a dead voter must not cost a living one's promise. Each promise is dated by its own question. What comes after the
deadline has passed, or for a tenure that is over, counts for nothing.
"""

from __future__ import annotations

import asyncio

from agent.coordination import failsafe_rules
from agent.coordination.failsafe_rules import Answer, Question
from agent.coordination.lease import Tenure
from agent.decision.command import Command
from agent.errors import CoordinationRefused, PeerError
from agent.execution.hands import Hands
from agent.execution.lease_writer import hand_over
from agent.instant import Instant, has_passed

SHORTEST_TIMEOUT_S = 0.2


async def ask_promises(hands: Hands, command: Command) -> str:
    """Ask once around. Raises `CoordinationRefused` when the promises do not suffice, or there is no lease to ask for any more."""
    tenure, asked = _alive(hands, command.epoch), hands.clock.now()
    if tenure is None:
        raise CoordinationRefused(f"the lease of epoch {command.epoch} is this node's no more, or it ran out")
    question = failsafe_rules.question_of(tenure, hands.knowledge.incarnation, hands.clock.nonce())
    hands.knowledge.tenure = failsafe_rules.with_round(tenure, asked)
    await _move_deadline(hands, tenure)  # a lone voter needs nobody else
    refusals = await _ask_all(hands, question, failsafe_rules.voters_asked(tenure), asked)
    after = hands.knowledge.tenure
    if after is None or after.epoch != tenure.epoch or after.promised is None or after.promised == tenure.promised:
        raise CoordinationRefused(f"too few promises: {'; '.join(refusals) or 'the lease ended meanwhile'}")
    counted, needed = failsafe_rules.count_of(after)
    return f"promised by {counted}; {needed} are needed"


async def _ask_all(hands: Hands, question: Question, voters: tuple[str, ...], asked: Instant) -> list[str]:
    """Take each promise as it comes; why the others did not promise, one sentence each."""
    timeout_s = max(SHORTEST_TIMEOUT_S, hands.knowledge.group.renew_s)
    tasks = [asyncio.create_task(_ask(hands, voter, question, timeout_s), name=f"ask {voter}") for voter in voters]
    refusals: list[str] = []
    try:
        for next_answer in asyncio.as_completed(tasks):
            voter, refusal = await next_answer
            if refusal:
                refusals.append(f"{voter}: {refusal}")
            else:
                await _count(hands, question.epoch, voter, asked)
    finally:
        for task in tasks:
            task.cancel()
    return refusals


async def _ask(hands: Hands, voter: str, question: Question, timeout_s: float) -> tuple[str, str]:
    """The voter, and why it did not promise; empty: it did."""
    if hands.peers is None:
        return voter, "the agents have no key to know each other by"
    try:
        answer: Answer = await hands.peers.ask_promise(voter, question, timeout_s)
    except PeerError as error:
        return voter, str(error)
    if not answer.fits(question, voter):
        return voter, "it answered another question, or under another name"
    return voter, "" if answer.promised else answer.reason or "it does not say why"


async def _count(hands: Hands, epoch: int, voter: str, asked: Instant) -> None:
    """A promise counts only inside its epoch, before the deadline has passed, and when no give-up was sent meanwhile."""
    tenure = _alive(hands, epoch)
    if tenure is not None:
        hands.knowledge.tenure = failsafe_rules.with_promise(tenure, voter, asked)
        await _move_deadline(hands, tenure)


async def _move_deadline(hands: Hands, before: Tenure) -> None:
    """Hand it over when it moved on."""
    after = hands.knowledge.tenure
    if after is not None and after.deadline != before.deadline:
        await hand_over(hands)


def _alive(hands: Hands, epoch: int) -> Tenure | None:
    """The own tenure of this epoch, unless its time is over or it is being given up."""
    tenure = hands.knowledge.tenure
    if tenure is None or tenure.epoch != epoch or tenure.vacating or tenure.deadline is None:
        return None
    return None if has_passed(tenure.deadline, hands.clock.now()) else tenure
