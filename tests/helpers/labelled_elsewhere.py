"""What Label Studio and Argilla give back, when people there have labelled the tasks that were exported."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.records import Choice, Harm

Verdict = tuple[Choice, Harm | None]
Answers = Callable[[str], Mapping[str, Verdict]]
"""Of an item, what each of the tool's users says of it."""
FLAGS = {Harm.FIRST: ["first"], Harm.SECOND: ["second"], Harm.BOTH: ["first", "second"]}


def label_studio(tasks: list[dict[str, Any]], answers: Answers) -> list[dict[str, Any]]:
    """As its JSON export has them: users by email, and much besides."""
    tasks = copy.deepcopy(tasks)
    for number, task in enumerate(tasks, 1):
        task |= {"id": 4000 + number, "file_upload": "tasks.json", "drafts": [], "predictions": [], "meta": {}}
        for user, (choice, harm) in answers(task["data"]["item"]).items():
            result: list[dict[str, Any]] = []
            if choice in (Choice.FIRST, Choice.SECOND):
                side = "left" if choice is Choice.FIRST else "right"
                result.append(
                    {
                        "id": "a", "from_name": "preference", "to_name": "preference", "type": "pairwise",
                        "value": {"selected": side}, "origin": "manual",
                    }
                )  # fmt: skip
            elif choice is not Choice.SKIP:
                result.append(_choices("no_winner", [choice.value]))
            if harm is not None:
                result.append(_choices("harmful", FLAGS[harm]))
            task["annotations"].append(
                {
                    "id": 1, "completed_by": {"id": 7, "email": user, "first_name": ""}, "result": result,
                    "was_cancelled": choice is Choice.SKIP, "ground_truth": False, "lead_time": 3.1,
                }
            )  # fmt: skip
    return tasks


def _choices(control: str, chosen: list[str]) -> dict[str, Any]:
    return {"id": "b", "from_name": control, "to_name": "prompt", "type": "choices", "value": {"choices": chosen}}


def argilla(records: list[dict[str, Any]], answers: Answers) -> list[dict[str, Any]]:
    """As the client's `Record.to_dict` has them: users by id, answers by question."""
    records = copy.deepcopy(records)
    for record in records:
        for user, (choice, harm) in answers(record["id"]).items():
            said = {"user_id": user, "status": "discarded" if choice is Choice.SKIP else "submitted"}
            record["responses"].setdefault("preference", []).append({"value": choice.value, **said})
            if harm is not None:
                record["responses"].setdefault("harmful", []).append({"value": FLAGS[harm], **said})
        record["_server_id"] = "5f3a"
    return records


TOOLS = {"label-studio": label_studio, "argilla": argilla}


def label_there(tasks: Path, form: str, answers: Answers, exported: Path) -> Path:
    """Label the tasks of a file; gives the file that the tool would export."""
    exported.write_text(json.dumps(TOOLS[form](json.loads(tasks.read_text()), answers)))
    return exported
