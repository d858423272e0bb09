"""The architectures of guests: what is different in their machines."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arch:
    """One of them."""

    name: str
    """In Debian's words."""
    guest: str
    """replex's default guest of this architecture."""
    qemu: str
    """QEMU's program."""
    qemu_cpu: str
    """The nearest to replex's default processor, an Atom of the Bonnell family with 4 MiB pages: Linux does the same on it."""
    compiler: list[str]
    """The compiler's options for programs of the guest."""


ARCHES = {
    arch.name: arch
    for arch in [
        Arch("i386", "debian-686", "qemu-system-i386", "n270,+pse", ["-m32", "-march=i686"]),
        Arch(
            "amd64",
            "debian-amd64",
            "qemu-system-x86_64",
            "n270,+pse,+lm,+syscall,+cx16,+lahf-lm",
            ["-m64", "-march=x86-64"],
        ),
    ]
}
DEFAULT = "i386"
