//! The commands of gdb's `monitor`.

use std::fmt::Write as _;

use log::debug;
use mmu::LinearAddr;
use sbe::{Action, Decision, EventSource};

use crate::{
    linear::{Linear, Width},
    parse,
    vm::Vm,
};

const HELP: &str = "\
info irq                    interrupt controllers and timer
info mmu ADDR               how a linear address (hexadecimal) is translated, and what is known of its page
info pages                  the code pages that have translations
info event                  the interrupt or exception that the machine was stopped for
intercept [SOURCE] VEC ...  stop before the guest gets these; SOURCE is external, software or exception, all if not given
trace [SOURCE] VEC ...      log these, and let the guest have them
reflect [SOURCE] VEC ...    let the guest have these
deliver                     when the machine goes on, the guest gets the event it was stopped for; so it is unless said otherwise
swallow                     the guest never learns of that event
change VEC [CODE]           the guest gets another vector instead, with an error code (hexadecimal) or none
inject VEC                  request an interrupt with this vector; 2 is NMI
stats                       what the machine has done
A vector VEC is decimal, or hexadecimal with 0x.
";

/// Obeys a command. Returns the answer: lines, each with a line feed at its end.
pub fn answer(vm: &mut Vm, command: &str) -> String {
    debug!("monitor {command}");
    let words: Vec<&str> = command.split_whitespace().collect();
    match obey(vm, &words) {
        Ok(answer) => answer,
        Err(complaint) => format!("{complaint} (see monitor help)\n"),
    }
}

fn obey(vm: &mut Vm, words: &[&str]) -> Result<String, String> {
    match words {
        [] | ["help"] => Ok(HELP.into()),
        ["info", "irq"] => Ok(vm.board().chipset().to_string()),
        ["info", "mmu"] => Err("an address is missing".into()),
        ["info", "mmu", address] => explain(vm, parse::linear(address)?),
        ["info", "pages"] => Ok(pages(vm)),
        ["info", "event"] => Ok(match vm.vcpu().intercepted() {
            Some(event) => format!("{event}\n"),
            None => "none\n".into(),
        }),
        ["intercept", rest @ ..] => set_policy(vm, rest, Action::Intercept),
        ["trace", rest @ ..] => set_policy(vm, rest, Action::Trace),
        ["reflect", rest @ ..] => set_policy(vm, rest, Action::Reflect),
        ["deliver"] => decide(vm, Decision::Reflect),
        ["swallow"] => decide(vm, Decision::Swallow),
        ["change"] | ["inject"] => Err("a vector is missing".into()),
        ["change", vector, code @ ..] => {
            let vector = parse::vector(vector)?;
            let error_code = match code {
                [] => None,
                [code] => Some(parse::hexadecimal(code)?),
                [_, rest, ..] => return Err(format!("{rest}: unexpected")),
            };
            decide(vm, Decision::Change { vector, error_code })
        }
        ["inject", vector] => {
            vm.inject(parse::vector(vector)?);
            Ok(String::new())
        }
        ["stats"] => Ok(vm.stats().to_string()),
        _ => Err(format!("{}: no such command", words.join(" "))),
    }
}

fn explain(vm: &Vm, address: LinearAddr) -> Result<String, String> {
    let vcpu = vm.vcpu();
    match Width::of(&vcpu.cpu).has_range(address, 1) {
        true => Ok(vcpu.mmu.explain(address).to_string()),
        false => Err(format!(
            "{}: no linear address in this mode",
            Linear(address)
        )),
    }
}

fn set_policy(vm: &mut Vm, words: &[&str], action: Action) -> Result<String, String> {
    let named = |word: &str| {
        EventSource::ALL
            .into_iter()
            .find(|source| source.name() == word)
    };
    let (source, vectors) = match words.split_first() {
        Some((first, rest)) if named(first).is_some() => (named(first), rest),
        _ => (None, words),
    };
    if vectors.is_empty() {
        return Err("a vector is missing".into());
    }
    let mut policy = vm.vcpu().policy().clone();
    for vector in vectors {
        let vector = parse::vector(vector)?;
        match source {
            Some(source) => policy.set(vector, source, action),
            None => policy.set_vector(vector, action),
        }
    }
    vm.set_policy(policy);
    Ok(String::new())
}

fn decide(vm: &mut Vm, decision: Decision) -> Result<String, String> {
    if vm.vcpu().intercepted().is_none() {
        return Err("the machine was not stopped for an event".into());
    }
    vm.decide(decision);
    Ok(String::new())
}

fn pages(vm: &Vm) -> String {
    let Some(pages) = vm.vcpu().code_pages() else {
        return "none: the emulator runs the guest\n".into();
    };
    if pages.is_empty() {
        return "none yet\n".into();
    }
    let mut text = String::new();
    for page in pages {
        let _ = writeln!(text, "{page}");
    }
    text
}
