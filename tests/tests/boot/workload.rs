//! A little of everything that users do: processes, pipes, sorting, arithmetic, files.

/// A script for the guest's shell.
pub const SCRIPT: &str = r#"
ls / | grep -cx -e bin -e proc -e tmp
seq 3000 | sort -r | sort -n > /tmp/sorted; seq 3000 | cmp - /tmp/sorted && echo sorted
seq 1000 | awk '{ sum += $1 * $1 } END { printf "%d %.3f %.6f\n", sum, sum / 8, sum / 9 }'
i=0; failed=0
while [ $i -lt 60 ]; do i=$((i + 1)); (exit $((i % 2))) || failed=$((failed + 1)); /bin/true; done
echo $i processes, $failed failed
head -c 150000 /bin/busybox | gzip | gunzip | cmp -n 150000 - /bin/busybox && echo unpacked
"#;

/// The output of the workload.
pub const OUTPUT: &str = "\
3
sorted
333833500 41729187.500 37092611.111111
60 processes, 30 failed
unpacked
";
