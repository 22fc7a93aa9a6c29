"""From limbs to people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rrm_extract.models import Skeleton
from rrm_extract.tasks.limbs import Connection
from rrm_extract.tasks.peaks import Peaks

__all__ = ["Person", "assemble"]


@dataclass(kw_only=True, eq=False)
class Person:
    """Peaks that belong to one body."""

    peaks: dict[int, int]
    """Number of the part -> which peak."""
    total: float
    """Sum of the scores of its peaks and connections."""

    @property
    def score(self) -> float:
        """``total`` for each part that was found."""
        return self.total / len(self.peaks)


def assemble(
    skeleton: Skeleton, peaks: Peaks, connections: Sequence[Sequence[Connection]]
) -> list[Person]:
    """Put limbs that share a peak together (section 2.4 of arXiv 1611.08050).

    Limbs are taken in the skeleton's order. A connection between two peaks of nobody is a new
    person, unless the limb only adds to people; one from a peak of somebody to a peak of nobody
    adds that part, if the person lacks it; one between two people makes them one, if they have no
    part in common. Others change nothing: a peak belongs to one person, and a person has each part
    once. (Published programs let a peak belong to two people, and replace parts, here.)

    Args:
        skeleton: the parts and limbs.
        peaks: as the connections count them.
        connections: for each limb of ``skeleton``.
    """
    height = peaks.scores.tolist()
    people: list[Person] = []
    owner: dict[int, Person] = {}

    def add(person: Person, peaks_by_part: dict[int, int]) -> None:
        person.peaks |= peaks_by_part
        owner.update(dict.fromkeys(peaks_by_part.values(), person))

    for limb, found in zip(skeleton.limbs, connections, strict=True):
        for link in found:
            one, two = owner.get(link.begin), owner.get(link.end)
            if one is None and two is None:
                if not limb.is_extra:
                    total = height[link.begin] + height[link.end] + link.score
                    people.append(Person(peaks={}, total=total))
                    add(people[-1], {limb.begin: link.begin, limb.end: link.end})
            elif one is None or two is None:
                person, part, peak = (
                    (two, limb.begin, link.begin) if one is None else (one, limb.end, link.end)
                )
                if person is not None and part not in person.peaks:
                    add(person, {part: peak})
                    person.total += height[peak] + link.score
            elif one is not two and not one.peaks.keys() & two.peaks.keys():
                people.remove(two)
                add(one, two.peaks)
                one.total += two.total + link.score
    return people
