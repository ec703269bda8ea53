"""A small reader of Dockerfiles: stages and their instructions, continuation lines joined."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its word in capitals and the rest of the (joined) line."""

    word: str
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments without the instruction's own `--flags`."""
        return [part for part in shlex.split(self.text) if not part.startswith("--")]

    def flag(self, name: str) -> str | None:
        """The value of `--name=value`, or None where the flag is not given."""
        prefix = f"--{name}="
        values = [part.removeprefix(prefix) for part in shlex.split(self.text) if part.startswith(prefix)]
        return values[0] if values else None


@dataclass(slots=True)
class Stage:
    """What follows one FROM."""

    image: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[Instruction]:
        """Every instruction with this word, in order."""
        return [instruction for instruction in self.instructions if instruction.word == word]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """Arguments before the first FROM, and the stages."""

    arguments: dict[str, str]
    stages: list[Stage]

    @property
    def runtime(self) -> Stage:
        """The stage that becomes the image."""
        return self.stages[-1]


def read_dockerfile(path: Path) -> Dockerfile:
    """Parse `path`.

    Raises:
        ValueError: An instruction other than ARG comes before the first FROM.
    """
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for instruction in _instructions(path.read_text()):
        if instruction.word == "FROM":
            image, *name = instruction.words
            stages.append(Stage(image, name[-1] if name else ""))
        elif stages:
            stages[-1].instructions.append(instruction)
        elif instruction.word == "ARG":
            key, _, value = instruction.text.partition("=")
            arguments[key] = value
        else:
            raise ValueError(f"{instruction.word} before the first FROM in {path}")
    return Dockerfile(arguments, stages)


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        found.append(Instruction(word.upper(), " ".join(rest.split())))
    return found
