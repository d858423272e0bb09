//! The environment of a command.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

use anyhow::{Result, bail};

/// The folders with programs, unless image or user name others.
const PATH: &[u8] = b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables of an environment, `NAME=VALUE`, each name once.
#[derive(Debug)]
pub struct Environment(Vec<Vec<u8>>);

impl Environment {
    /// Creates the environment that every command has, and more on a terminal.
    pub fn new(on_terminal: bool) -> Self {
        let mut environment = Self(vec![PATH.to_vec()]);
        if on_terminal {
            let term = env::var_os("TERM").unwrap_or_else(|| "xterm".into());
            environment.set(&[b"TERM=", term.as_bytes()].concat());
        }
        environment
    }

    /// Adds what an image says.
    pub fn add_image(&mut self, variables: &[String]) {
        for variable in variables {
            self.set(variable.as_bytes());
        }
    }

    /// Adds the variables of `--env`, `NAME=VALUE` or `NAME`; a name alone has the value of this process's environment, and is left
    /// out if it has none.
    ///
    /// # Errors
    /// If there is no name.
    pub fn add_options(&mut self, variables: &[OsString]) -> Result<()> {
        for variable in variables {
            let name = variable.as_bytes().split(|&byte| byte == b'=').next();
            if name.is_none_or(<[u8]>::is_empty) {
                bail!("--env {}: there is no name", variable.display());
            }
            if let Some(variable) = resolved(variable, |name| env::var_os(name)) {
                self.set(&variable);
            }
        }
        Ok(())
    }

    /// Returns the variables.
    pub fn into_variables(self) -> Vec<Vec<u8>> {
        self.0
    }

    /// Sets a variable, in place of an earlier one of its name.
    fn set(&mut self, variable: &[u8]) {
        let name = |text: &[u8]| text.split(|&byte| byte == b'=').next().map(<[u8]>::to_vec);
        self.0.retain(|other| name(other) != name(variable));
        self.0.push(variable.to_vec());
    }
}

/// Returns `NAME=VALUE` for `variable`, whose value is looked up if it is only a name.
fn resolved(variable: &OsStr, look_up: impl Fn(&OsStr) -> Option<OsString>) -> Option<Vec<u8>> {
    let text = variable.as_bytes();
    if text.contains(&b'=') {
        return Some(text.to_vec());
    }
    let value = look_up(variable)?.into_vec();
    Some([text, b"=", &value].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_variables_replace_earlier_ones() {
        let mut environment = Environment::new(false);
        environment.add_image(&["A=1".into(), "AB=2".into()]);
        environment
            .add_options(&["A=3=4".into(), "REPLEX_NOT_SET".into()])
            .unwrap();
        assert_eq!(environment.into_variables(), [PATH, b"AB=2", b"A=3=4"]);
    }

    #[test]
    fn a_variable_needs_a_name() {
        for variable in ["=x", "", "="] {
            let mut environment = Environment::new(false);
            let error = environment.add_options(&[variable.into()]).unwrap_err();
            assert!(error.to_string().contains("--env"), "{error}");
        }
    }

    #[test]
    fn a_name_alone_has_the_hosts_value() {
        let host = |name: &OsStr| (name == "HOME").then(|| "/here = there".into());
        let expected = Some(b"HOME=/here = there".to_vec());
        assert_eq!(resolved("HOME".as_ref(), host), expected);
        assert_eq!(resolved("OTHER".as_ref(), host), None);
        assert_eq!(resolved("OTHER=".as_ref(), host), Some(b"OTHER=".to_vec()));
    }
}
