"""People at desks and at terminals, for tests."""

from collections.abc import Callable, Iterable

from orchestrator.cli.signing import keep
from orchestrator.core.records import Choice, Harm, Role
from orchestrator.core.state import Batch
from orchestrator.home import Home
from orchestrator.review.desk import Asked, Desk, Said
from orchestrator.store.tickets import Ticket


def ticket_of(desk: Desk, asked: Asked) -> Ticket:
    """What a person is not told: which comparison is on the screen, and in which order."""
    found = desk.office.ledger.tickets.find(asked.ticket)
    assert found is not None
    return found


def batch_of(desk: Desk, asked: Asked) -> Batch:
    found = desk.office.state().batch(ticket_of(desk, asked).batch)
    assert found is not None
    return found


def say(desk: Desk, asked: Asked, choice: Choice, harm: Harm | None = None) -> Said:
    """Say of what is shown what `choice` and `harm` say of the comparison in its own order."""
    if ticket_of(desk, asked).swapped:
        choice, harm = choice.swapped, harm.swapped if harm is not None else None
    return desk.label(asked.ticket, choice, harm)


def say_next(desk: Desk, says: Choice | Callable[[Batch, int], Choice], harm: Harm | None = None) -> Ticket | None:
    """Label the next comparison, in its own order; the ticket that was answered, None where nothing is asked."""
    asked = desk.asked()
    if asked is None:
        return None
    ticket = ticket_of(desk, asked)
    choice = says if isinstance(says, Choice) else says(batch_of(desk, asked), ticket.item)
    say(desk, asked, choice, harm)
    return ticket


def let_in(home: Home, name: str, roles: Iterable[Role] = tuple(Role)) -> str:
    """Give somebody a token and keep it in the home, as `login` would; gives the secret."""
    with home.ledger() as ledger:
        secret, person = ledger.people.token(name, tuple(roles), by="tester")
    keep(home, person, secret)
    return secret
