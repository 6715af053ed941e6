"""Edits of the view are found and put right."""

from mlflow_world import CAMPAIGN, VETO, World, approved_version, client, digest, everything, runs

from orchestrator.core import events as ev
from orchestrator.tracking.mlflow_view import ALIAS
from orchestrator.tracking.tags import CURSOR


def test_an_alias_moved_by_hand_is_reported_and_put_back(mirrored: World) -> None:
    tracker = mirrored.tracker()
    tracker.sync(CAMPAIGN)
    assert tracker.drift(CAMPAIGN) == []
    before = everything(mirrored)
    client(mirrored).set_registered_model_alias(CAMPAIGN, ALIAS, "1")
    problems = tracker.drift(CAMPAIGN)
    assert [(p.where, p.what) for p in problems] == [
        ("alias approved of quickstart", "it points to version 1; the ledger approves version 2")
    ]
    assert tracker.repair(CAMPAIGN) == problems
    assert tracker.drift(CAMPAIGN) == []
    assert everything(mirrored) == before


def test_edits_of_every_kind_are_reported_and_repaired(world: World) -> None:
    world.campaign()
    tracker = world.tracker()
    tracker.sync(CAMPAIGN)
    mlflow, tree = client(world), runs(world)
    mlflow.delete_model_version(CAMPAIGN, "2")
    mlflow.delete_run(tree["s0.a0"].info.run_id)
    mlflow.set_tag(tree["s0.a1"].info.run_id, "ratchet.verdict", "rollback")
    mlflow.set_tag(tree[CAMPAIGN].info.run_id, CURSOR, "999")
    problems = tracker.drift(CAMPAIGN)
    assert [p.where for p in problems] == ["cursor", "s0.a0", "s0.a1", "model quickstart"]
    assert tracker.repair(CAMPAIGN) == problems
    assert tracker.drift(CAMPAIGN) == []
    assert approved_version(world) == str(
        max(int(v.version) for v in mlflow.search_model_versions(f"name='{CAMPAIGN}'"))
    )


def test_vetoes_and_causes_edited_by_hand_are_put_back(world: World) -> None:
    world.base()
    world.attempt(0, 0, digest("base"), passes=False)
    tracker = world.tracker()
    tracker.sync(CAMPAIGN)
    before = everything(world)
    run = runs(world)["s0.a0"].info.run_id
    client(world).set_tag(run, "ratchet.vetoes", "")
    client(world).delete_tag(run, "ratchet.causes")
    assert [(p.where, p.what) for p in tracker.repair(CAMPAIGN)] == [
        ("s0.a0", f"MLflow shows the vetoes '', the ledger {VETO!r}"),
        ("s0.a0", "MLflow shows the causes None, the ledger 'reward_model'"),
    ]
    assert everything(world) == before


def test_an_alias_without_an_advance_is_taken_away(world: World) -> None:
    world.base()
    world.attempt(0, 0, digest("base"), passes=False)
    tracker = world.tracker()
    tracker.sync(CAMPAIGN)
    mlflow = client(world)
    ledger = world.ledger.events(CAMPAIGN)[0].hash
    mlflow.create_registered_model(CAMPAIGN, tags={"ratchet.ledger": ledger})
    mlflow.create_model_version(CAMPAIGN, f"runs:/{runs(world)['s0.a0'].info.run_id}/candidate", await_creation_for=0)
    mlflow.set_registered_model_alias(CAMPAIGN, ALIAS, "1")
    assert ["nothing is approved" in p.what for p in tracker.repair(CAMPAIGN)] == [True]
    assert ALIAS not in mlflow.get_registered_model(CAMPAIGN).aliases


def test_a_lag_is_reported_as_such(world: World) -> None:
    world.base()
    tracker = world.tracker()
    tracker.sync(CAMPAIGN)
    world.record(ev.AttemptBegun(stage=0, attempt=0, start=digest("base")))
    assert [p.what for p in tracker.drift(CAMPAIGN)] == ["the view is 1 events behind the ledger"]
