"""Checks by its fingerprint whether a volume is the shadow that was exported."""

from iifuse import errors
from iifuse.core import loss
from iifuse.core.bitmap import Bitmap
from iifuse.core.loss import Loss
from iifuse.core.ticket import TicketEntry
from iifuse.store import fingerprint
from iifuse.store.volume import Volume
from iifuse.units import command


def check_shadow(shadow: Volume, ticket: TicketEntry, *, others: bool, sure: bool) -> list[str]:
    """Check that a volume is the shadow of this ticket. Returns remarks for the user. Blocks.

    `others`: another import of this export is known, which may have written to any chunk. Raises
    BadTicket for another volume. Raises Question if chunks differ and no known bitmap says so.
    """
    if not ticket.prints:
        why = "is one of version 0.1.0 and has no fingerprint: that it is of this shadow"
        return [f"{shadow.path}: the ticket {why} was not checked"]
    wrong = fingerprint.differing(shadow, ticket.size_bytes, ticket.prints)
    fitting = fingerprint.telling(ticket.prints, ticket.size_bytes) - wrong
    if not wrong or (others and fitting):
        return []
    found = f"{len(wrong)} of {len(ticket.prints)} chunks that were looked at"
    if others:
        what = (
            f"is not the shadow of this ticket, or another import of it wrote all over it: {found} "
            "are others than at the export, and none tells that it is the right one"
        )
        loss.check([Loss(shadow.path, what)], sure=sure)
        return []
    if not fitting:
        raise errors.BadTicket(
            shadow.path,
            f"is not the shadow of this ticket: {found} are others than at the export",
            "use the ticket that its own export wrote, or export it again",
        )
    what = (
        f"was written since its export, or is not the shadow of this ticket: {found} are others. "
        "What was written there is in no bitmap that this import knows"
    )
    loss.check([Loss(shadow.path, what)], sure=sure)
    return []


def check_join(shadow: Volume, ticket: TicketEntry | None, noted: Bitmap, path: str) -> None:
    """Check that a shadow differs from its export only where the bitmaps say so. Blocks.

    `noted`: the bits of all known bitmaps. `path`: that of the secondary bitmap, for the message.
    Raises BadSecondary.
    """
    if ticket is None:
        return
    unnoted = {at: sum_ for at, sum_ in ticket.prints.items() if not noted.word(at, 1)}
    wrong = fingerprint.differing(shadow, ticket.size_bytes, unnoted)
    if wrong:
        raise errors.BadSecondary(
            path,
            f"notes too little: {len(wrong)} of {len(unnoted)} chunks of {shadow.path} that were "
            "looked at and are not noted as changed are others than at the export",
            f"see that it is the right shadow; {command('iiadm -R', shadow.path)} takes it back "
            "with all chunks different",
        )
