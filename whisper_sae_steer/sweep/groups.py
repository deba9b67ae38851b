"""Which SAEs are trained side by side, so that memory is enough."""

from collections.abc import Mapping

from ..errors import ConfigError
from ..training.config import TrainConfig
from ..training.trainee import Member

Team = dict[Member, TrainConfig]
PROCESS_BYTES = 1_000_000_000
"""libraries, the encoder and what allocators keep"""
PARAMETER_BYTES = 52
"""of each parameter: itself, gradient, Adam's two moments, a checkpoint read and one written, the SAE made"""
STEP_BYTES = 48
"""of each activation of a batch, while one SAE makes its step: a JumpReLU's are dense"""
FRAME_BYTES = 12
"""of each value in the buffer: one pool is drawn from while the next is read, joined and shuffled, 2 bytes a
value, and a pool may be half as large again as it should be"""


def groups(members: Mapping[Member, TrainConfig], widths: Mapping[str, int], memory_gb: float) -> list[Team]:
    """SAEs in their order, in as few groups as the memory allows. ConfigError if one alone takes too much.

    What is left of the members after a whole group is grouped as it was before.
    """
    made: list[Team] = []
    for member, config in members.items():
        alone = {member: config}
        if gigabytes(alone, widths) > memory_gb:
            raise ConfigError(
                f"{member.name} takes {gigabytes(alone, widths):.1f} GB, more than {memory_gb:g}:"
                " take a smaller buffer_frames, fewer features, or more memory_gb"
            )
        if made and gigabytes(made[-1] | alone, widths) <= memory_gb:
            made[-1] |= alone
        else:
            made.append(alone)
    return made


def gigabytes(team: Team, widths: Mapping[str, int]) -> float:
    """What training these side by side takes at most, about."""
    parameters, steps = 0, list[int]()
    for member, config in team.items():
        width = widths[member.tap]
        parameters += 2 * width * config.features(width)
        steps.append(config.batch_size * config.features(width))
    frames = next(iter(team.values())).buffer_frames * sum(widths[tap] for tap in {m.tap for m in team})
    held = PARAMETER_BYTES * parameters + STEP_BYTES * max(steps) + FRAME_BYTES * frames
    return (PROCESS_BYTES + held) / 1e9
