# The beginning of scripts that take steps: a step is a command whose output and status the harness gets by a name.
step() {
	echo "= $1"
	shift
	"$@" </dev/null 2>&1
	echo "= status $?"
}
# Boots a guest of three instructions, which ends with status 42.
tiny="replex boot --kernel /guest/tiny"
# Boots Debian's kernel.
debian="replex boot --kernel /guest/vmlinuz --initrd /guest/initrd.cpio"

