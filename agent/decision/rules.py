"""The rule table: start reading at TABLE. For each concern the first row that holds says what is done; several concerns may act at once.

A row is a name, a sentence, when it holds (conditions.py) and its commands (orders.py). Rows are pure functions of a Context. The picture
in agent/README.md is drawn from TABLE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from agent.decision import conditions, orders, routes, safeguards
from agent.decision.command import (
    AskPromises,
    CastVote,
    Command,
    FinishIntent,
    GiveWord,
    ProbeRoutes,
    RaiseRoutes,
    Resource,
    SealService,
    StartService,
    StopReceiving,
)
from agent.decision.context import Context
from agent.decision.intents import finished
from agent.decision.votes import may_call_down, wants_withdrawal


class Concern(StrEnum):
    """What a row is about. One row of each concern may act in a turn."""

    LEASE = "lease"
    FAILSAFE = "failsafe"
    SERVICE = "service"
    SETTINGS = "settings"
    VOTE = "vote"
    INTENT = "intent"
    ROUTES = "routes"
    HOOKS = "hooks"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row. `commands` is asked only when `holds`."""

    name: str
    concern: Concern
    sentence: str
    holds: Callable[[Context], bool]
    commands: Callable[[Context], tuple[Command, ...]]


_LEASE = Concern.LEASE
_SERVICE = Concern.SERVICE

TABLE: tuple[Rule, ...] = (
    # -------- lease
    Rule(
        "lease-frozen",
        _LEASE,
        "Coordination went back in time or is another store: nobody renews, nobody takes over; a person decides.",
        lambda c: c.view.coordination.went_back,
        orders.nothing,
    ),
    Rule("lease-busy", _LEASE, "One lease write at a time.", lambda c: c.is_busy(Resource.LEASE), orders.nothing),
    Rule(
        "recreate-key",
        _LEASE,
        "The key is gone: only its holder, under its live deadline, makes it anew.",
        conditions.key_is_lost,
        orders.recreate,
    ),
    Rule(
        "form-group",
        _LEASE,
        "There never was a lease and every member promised not to be writable: the best one writes the first record.",
        conditions.may_form,
        orders.form,
    ),
    Rule(
        "give-up",
        _LEASE,
        "The own service is proven down and another member can lead: give the lease up, so that nobody needs a clock.",
        routes.may_give_up,
        orders.vacate,
    ),
    Rule("renew", _LEASE, "Renew when it is due, or at once when the record has to change.", conditions.renewal_is_due, orders.renew),
    Rule(
        "retake-own",
        _LEASE,
        "The record is unchanged this node's own, no deadline of it is alive and the service is not writable: take the next epoch.",
        conditions.may_retake,
        orders.retake,
    ),
    Rule(
        "take-vacancy",
        _LEASE,
        "The lease was given up, or it ran out and a quorum calls the service down, and this member is next: take it.",
        conditions.may_take,
        orders.take_vacancy,
    ),
    # -------- failsafe
    Rule("failsafe-busy", Concern.FAILSAFE, "One round of questions at a time.", lambda c: c.is_busy(Resource.PROMISE), orders.nothing),
    Rule(
        "ask-promises",
        Concern.FAILSAFE,
        "No renewal commits: ask the voters to let nobody take over, so that the lease goes on by their promises.",
        conditions.must_ask,
        lambda c: (AskPromises(conditions.epoch(c)),),
    ),
    # -------- service
    Rule(
        "fence-late",
        _SERVICE,
        "The own lease is over and the service may take writes: fence first, ask afterwards.",
        lambda c: c.is_late and c.may_be_writable,
        orders.fence("the lease ran out"),
    ),
    Rule(
        "adopt-unformed",
        _SERVICE,
        "The service takes writes in a group that never had a lease: stop it cleanly, so that every member can give its word.",
        conditions.is_unformed_stray,
        orders.stop("the group is not formed yet"),
    ),
    Rule(
        "fence-stray",
        _SERVICE,
        "The service takes writes without a lease: fence it.",
        lambda c: conditions.is_stray(c) and not c.never_formed,
        orders.fence("it takes writes without a lease"),
    ),
    Rule(
        "fence-remains",
        _SERVICE,
        "The service's first process is gone but others are left that may still commit: fence them.",
        conditions.is_crashed,
        orders.fence("its first process is gone"),
    ),
    Rule(
        "fence-hung",
        _SERVICE,
        "The service has not answered for too long: fence it, then it can start anew.",
        conditions.is_hung,
        orders.fence("it answers no more"),
    ),
    Rule(
        "service-busy",
        _SERVICE,
        "One command at a time for the service; only a fence goes before it.",
        lambda c: c.is_busy(Resource.SERVICE),
        orders.nothing,
    ),
    Rule(
        "fence-failed-promotion",
        _SERVICE,
        "The service cannot become writable here and another member can lead: fence, so that the lease can be given up.",
        conditions.lets_another_try,
        lambda c: orders.fence(safeguards.cannot_lead(c))(c),
    ),
    Rule(
        "step-down-unfenced",
        _SERVICE,
        "A fence that must stand does not: stop cleanly while the lease still lasts.",
        conditions.steps_down,
        orders.stop("a fence that must stand does not"),
    ),
    Rule(
        "switch-over",
        _SERVICE,
        "An operator wants another leader and it is ready: stop cleanly.",
        conditions.switches_over,
        orders.stop("switchover"),
    ),
    Rule(
        "fence-crashed",
        _SERVICE,
        "The holder's service is gone: prove that no process of it is left.",
        conditions.must_prove_down,
        orders.fence("it crashed"),
    ),
    Rule(
        "restart-in-place",
        _SERVICE,
        "The holder's service is gone and nobody else should lead: start it again, read-only, under the same lease.",
        conditions.restarts_in_place,
        lambda c: (StartService(conditions.epoch(c)),),
    ),
    Rule(
        "stop-receiving",
        _SERVICE,
        "The lease is vacant, or newly this node's: never again receive from an older epoch, and read the final position.",
        conditions.must_stop_receiving,
        lambda c: (StopReceiving(conditions.epoch(c)),),
    ),
    Rule(
        "promote",
        _SERVICE,
        "This node holds the lease and every safeguard permits: make the service writable.",
        conditions.may_promote,
        orders.promote,
    ),
    Rule(
        "seal",
        _SERVICE,
        "The service takes writes unsealed: seal it.",
        conditions.lacks_seal,
        lambda c: (SealService(conditions.epoch(c)),),
    ),
    Rule(
        "start", _SERVICE, "The service is down: start it read-only.", conditions.may_start, lambda c: (StartService(conditions.epoch(c)),)
    ),
    Rule(
        "follow",
        _SERVICE,
        "Another member leads and the own history is a beginning of its: follow it.",
        conditions.must_follow,
        orders.follow,
    ),
    Rule(
        "rejoin",
        _SERVICE,
        "Another member leads and the own history went another way: rewind, or copy anew.",
        conditions.must_rejoin,
        orders.rejoin,
    ),
    # -------- settings
    Rule("settings-busy", Concern.SETTINGS, "One change of settings at a time.", lambda c: c.is_busy(Resource.SETTINGS), orders.nothing),
    Rule(
        "sync-names",
        Concern.SETTINGS,
        "Commits wait for other standbys than they should: say it to the service.",
        conditions.sync_names_differ,
        orders.set_sync_names,
    ),
    # -------- votes
    Rule(
        "vote-busy",
        Concern.VOTE,
        "One vote at a time, and none on a reading older than the own last write.",
        lambda c: c.is_busy(Resource.VOTE) or c.view.coordination.lags,
        orders.nothing,
    ),
    Rule(
        "give-word",
        Concern.VOTE,
        "Before the first lease: promise not to be writable without one.",
        conditions.may_give_word,
        lambda _: (GiveWord(0),),
    ),
    Rule(
        "call-down",
        Concern.VOTE,
        "A fresh look finds the leader's service unusable and its lease stands still, or patience has run out: vote down.",
        lambda c: may_call_down(c) and c.may_try(CastVote),
        orders.vote(down=True),
    ),
    Rule(
        "withdraw-vote",
        Concern.VOTE,
        "The leader's service is usable, or its lease moves again: take the vote back by a write that commits.",
        lambda c: wants_withdrawal(c) and c.may_try(CastVote),
        orders.vote(down=False),
    ),
    # -------- intents
    Rule(
        "intent-busy",
        Concern.INTENT,
        "One intent at a time, and none on a reading older than the own last write.",
        lambda c: c.is_busy(Resource.INTENT) or c.view.coordination.lags,
        orders.nothing,
    ),
    Rule(
        "finish-intent",
        Concern.INTENT,
        "An operator's intent is done, refused or out of time: say so and take it off the list.",
        lambda c: finished(c) is not None and not c.view.coordination.went_back and c.may_try(FinishIntent),
        orders.finish,
    ),
    # -------- what follows the leader
    Rule(
        "routes-drop",
        Concern.ROUTES,
        "This node does not lead, or its service is down, and something that follows the leader points here: take it off, kill first.",
        routes.must_drop,
        orders.drop_routes,
    ),
    Rule(
        "routes-busy",
        Concern.ROUTES,
        "One change of routes at a time; only a drop goes before it.",
        lambda c: c.is_busy(Resource.ROUTES),
        orders.nothing,
    ),
    Rule(
        "routes-raise",
        Concern.ROUTES,
        "This node leads, has time, and its service takes writes: what follows the leader points here.",
        routes.must_raise,
        lambda c: (RaiseRoutes(conditions.epoch(c)),),
    ),
    Rule(
        "routes-probe",
        Concern.ROUTES,
        "Elected, or leading for a while: ask whether what follows the leader answers elsewhere.",
        routes.must_probe,
        lambda c: (ProbeRoutes(conditions.epoch(c)),),
    ),
    # -------- hooks
    Rule("hooks-busy", Concern.HOOKS, "One run of hooks at a time.", lambda c: c.is_busy(Resource.HOOKS), orders.nothing),
    Rule(
        "hooks-run",
        Concern.HOOKS,
        "This node was elected and everything points to it, or it was defeated and nothing does: run the operator's hooks.",
        routes.must_run_hooks,
        orders.run_hooks,
    ),
)
