//! gdb's `monitor` commands.

use super::killed;
use crate::support::{COUNT, ENGINES};

#[test]
fn commands_answer() {
    for engine in ENGINES {
        killed(engine, COUNT, |client| {
            let help = client.monitor("help");
            assert_eq!(client.monitor(""), help);
            for (command, contains) in [
                ("info irq", "master"),
                ("info mmu 100000", "100000"),
                ("info mmu 0xffffffff", "ffffffff"),
                ("info pages", "none"),
                ("info event", "none"),
                ("stats", "instructions"),
                ("  info   event ", "none"),
            ] {
                let answer = client.monitor(command);
                let lower = answer.to_lowercase();
                assert!(lower.contains(contains), "{command}: {answer}");
                assert!(answer.ends_with('\n'), "{command}: {answer:?}");
            }
            // All but the last line name a command.
            let named = help.lines().count() - 1;
            for line in help.lines().take(named) {
                let command = line.split("  ").next().unwrap();
                let words = command.split([' ', '[']).take(2);
                let word = words.take_while(|word| word.chars().all(char::is_lowercase));
                let command = word.collect::<Vec<_>>().join(" ");
                let answer = client.monitor(&command);
                assert!(!answer.contains("no such command"), "{command}: {answer}");
            }
            for command in [
                "intercept 14",
                "intercept external 0x20 0x21",
                "trace software 0x80",
                "trace 3",
                "reflect 3 0x80 14 0x20 0x21",
            ] {
                assert_eq!(client.monitor(command), "", "{command}");
            }
        });
    }
}

#[test]
fn bad_commands_are_complained_about() {
    for engine in ENGINES {
        killed(engine, COUNT, |client| {
            for (command, complaint) in [
                ("info", "info: no such command"),
                ("info x", "info x: no such command"),
                ("info irq x", "info irq x: no such command"),
                ("\u{1f600}", "no such command"),
                ("info mmu", "an address is missing"),
                ("info mmu x", "x: not a hexadecimal number"),
                (
                    "info mmu 100000000",
                    "0000000100000000: no linear address in this mode",
                ),
                ("info mmu 10000000000000000", "not a hexadecimal number"),
                ("intercept", "a vector is missing"),
                ("intercept external", "a vector is missing"),
                ("intercept 256", "256: not a vector"),
                ("trace -1", "-1: not a vector"),
                ("reflect internal 3", "internal: not a vector"),
                ("deliver", "not stopped for an event"),
                ("swallow", "not stopped for an event"),
                ("change 3", "not stopped for an event"),
                ("change", "a vector is missing"),
                ("change 300", "300: not a vector"),
                ("change 3 x", "x: not a hexadecimal number"),
                ("change 3 4 5", "5: unexpected"),
                ("inject", "a vector is missing"),
                ("inject x", "x: not a vector"),
                ("inject 1 2", "no such command"),
            ] {
                let answer = client.monitor(command);
                assert!(answer.contains(complaint), "{command}: {answer}");
                assert!(answer.ends_with("(see monitor help)\n"), "{answer}");
            }
            // Bytes that are no text, and digits that are none.
            client.send("qRcmd,ff00");
            assert!(client.receive().starts_with('O'));
            assert_eq!(client.receive(), "OK");
            // One bad vector changes nothing for the good ones.
            client.monitor("intercept 3 256");
            assert_eq!(client.monitor("info event"), "none\n");
        });
    }
}
