"""People at desks and at terminals, for tests."""

from collections.abc import Iterable

from small_campaigns import Says, for_the_candidate

from orchestrator.cli.signing import keep
from orchestrator.core.records import Choice, Harm, Role
from orchestrator.home import Home
from orchestrator.review.desk import Asked, Desk, Said
from orchestrator.store.tickets import Ticket


def ticket_of(desk: Desk, asked: Asked) -> Ticket:
    """What a person is not told: which comparison is on the screen, and in which order."""
    found = desk.office.ledger.tickets.find(asked.ticket)
    assert found is not None
    return found


def asked_of(desk: Desk) -> Asked:
    asked = desk.asked()
    assert asked is not None, desk.refusal()
    return asked


def say(desk: Desk, asked: Asked, choice: Choice, harm: Harm | None = None) -> Said:
    """Say of what is shown what `choice` and `harm` say of the comparison in its own order."""
    if ticket_of(desk, asked).swapped:
        choice, harm = choice.swapped, harm.swapped if harm is not None else None
    return desk.label(asked.ticket, choice, harm)


def say_next(desk: Desk, says: Choice | Says = for_the_candidate) -> Ticket | None:
    """Label what is asked next, in its own order, check items rightly; the ticket that was answered, if any."""
    asked = desk.asked()
    if asked is None:
        return None
    ticket = ticket_of(desk, asked)
    batch = desk.office.state().batch(ticket.batch)
    assert batch is not None
    if isinstance(says, Choice):
        say(desk, asked, says)
    else:
        say(desk, asked, batch.expected[ticket.item] if batch.expected else says(batch, ticket.item))
    return ticket


def all_of(desk: Desk, says: Choice | Says = Choice.TIE) -> list[int]:
    """Label until nothing more is asked; gives the items in the order in which they came."""
    items = []
    while (ticket := say_next(desk, says)) is not None:
        items.append(ticket.item)
    return items


def let_in(home: Home, name: str, roles: Iterable[Role] = tuple(Role)) -> str:
    """Give somebody a token and keep it in the home, as `login` would; gives the secret."""
    with home.ledger() as ledger:
        secret, person = ledger.people.token(name, tuple(roles), by="tester")
    keep(home, person, secret)
    return secret
