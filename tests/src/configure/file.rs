//! What an environment file says of each provider.

use std::collections::{BTreeMap, BTreeSet};

use crossdock::providers::{Manifest, PROVIDERS, Provider};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

/// One provider, and what the file says of it; nothing, if the file does not mention it.
pub struct Entry {
    pub provider: &'static dyn Provider,
    pub given: Option<Given>,
}

/// A provider's members and environment, as the file has them.
#[derive(Debug)]
pub struct Given {
    pub environment: String,
    members: BTreeMap<&'static str, SecretString>,
    /// The variables that have to be there and are not.
    pub missing: Vec<&'static str>,
    /// Whether the file says anything of this very provider.
    pub mentioned: bool,
    /// The provider whose application is used, where there is none of its own.
    pub borrowed: Option<&'static Manifest>,
}

impl Given {
    /// The secret as the functions read it.
    pub fn text(&self) -> SecretString {
        let mut secret = json!({ "environment": self.environment });
        for (member, value) in &self.members {
            secret[*member] = json!(value.expose_secret());
        }
        SecretString::from(secret.to_string())
    }
}

/// Every variable that means something, in the order of the registry.
fn known() -> impl Iterator<Item = String> {
    PROVIDERS.iter().flat_map(|provider| {
        let manifest = provider.manifest();
        let credentials = manifest.credentials.iter();
        let own = credentials.map(|credential| credential.variable.to_owned());
        own.chain([manifest.environment_variable()])
    })
}

/// What stands in the file: each known variable once, and nothing else.
struct Values(BTreeMap<String, SecretString>);

impl Values {
    /// A variable without a value counts as absent, so that a form may be filled in part.
    fn get(&self, variable: &str) -> Option<&SecretString> {
        let value = self.0.get(variable)?;
        (!value.expose_secret().is_empty()).then_some(value)
    }

    fn mentions(&self, manifest: &Manifest) -> bool {
        let mut credentials = manifest.credentials.iter();
        credentials.any(|one| self.get(one.variable).is_some())
            || self.get(&manifest.environment_variable()).is_some()
    }

    /// Whether anything stands in the file that an application cannot do without: a key of webhooks
    /// alone makes none.
    fn names_an_app(&self, manifest: &Manifest) -> bool {
        let mut required = manifest.credentials.iter().filter(|one| one.required);
        required.any(|one| self.get(one.variable).is_some())
    }

    /// The provider before `manifest` in the registry whose application it may share, and does, since
    /// the file names that one and none of its own.
    fn lender(&self, manifest: &Manifest) -> Option<&'static Manifest> {
        let before = PROVIDERS.iter().map(|provider| provider.manifest());
        let mut before = before.take_while(|one| one.name != manifest.name);
        let other = before.find(|one| manifest.shares_app_with == Some(one.name))?;
        (!self.names_an_app(manifest) && self.names_an_app(other)).then_some(other)
    }

    fn given(&self, manifest: &'static Manifest) -> Option<Given> {
        let (borrowed, mentioned) = (self.lender(manifest), self.mentions(manifest));
        if borrowed.is_none() && !mentioned {
            return None;
        }
        let holder = borrowed.unwrap_or(manifest);
        let own = self.get(&manifest.environment_variable());
        let environment = own.or_else(|| self.get(&holder.environment_variable()));
        let mut given = Given {
            environment: environment
                .map_or("production", |text| text.expose_secret())
                .to_owned(),
            members: BTreeMap::new(),
            missing: Vec::new(),
            mentioned,
            borrowed,
        };
        for credential in manifest.credentials {
            // The application alone is lent: webhooks have an address and a key of their own.
            let mut held = holder.credentials.iter().filter(|_| credential.required);
            let held = held.find(|one| one.member == credential.member);
            let variable = held.map_or(credential.variable, |held| held.variable);
            match self.get(variable) {
                Some(value) => drop(given.members.insert(credential.member, value.clone())),
                None if credential.required => given.missing.push(variable),
                None => {}
            }
        }
        Some(given)
    }
}

/// Reads an environment file. One fault spoils it whole, because a misspelt variable changes what
/// the others mean: without its `…_ENVIRONMENT`, credentials of a sandbox would be production's.
///
/// # Errors
/// One line for each fault. None of them holds a value.
pub fn read(text: &str) -> Result<Vec<Entry>, Vec<String>> {
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut faults = substitutions(text);
    let mut values = BTreeMap::new();
    let names: BTreeSet<String> = known().collect();
    for entry in dotenvy::from_read_iter(text.as_bytes()) {
        let (name, value) = match entry {
            Ok(entry) => entry,
            Err(error) => {
                faults.push(unreadable(text, &error));
                continue;
            }
        };
        if !names.contains(&name) {
            faults.push(format!("{name} is no variable{}", suggestion(&name)));
        } else if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            faults.push(format!(
                "{name} holds a blank or another character that no credential has"
            ));
        } else if values
            .insert(name.clone(), SecretString::from(value))
            .is_some()
        {
            faults.push(format!("{name} stands twice"));
        }
    }
    let values = Values(values);
    let mut entries = Vec::new();
    for provider in PROVIDERS.iter().copied() {
        let manifest = provider.manifest();
        let given = values.given(manifest);
        if let Some(given) = &given
            && manifest.site(&given.environment).is_none()
        {
            faults.push(format!(
                "{} is neither production nor sandbox nor the address of a stand-in on this \
                 machine",
                manifest.environment_variable()
            ));
        }
        entries.push(Entry { provider, given });
    }
    if faults.is_empty() {
        Ok(entries)
    } else {
        Err(faults)
    }
}

/// The reader puts variables of the operator's environment, and of the file itself, in for `$NAME`,
/// which no credential means: nobody would see what became of it. It does so everywhere but between
/// single quotes, so a line with a dollar is taken only when such quotes stand around its whole value.
fn substitutions(text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    let open = lines.filter(|(_, line)| line.contains('$') && !is_to_the_letter(line));
    open.map(|(index, _)| {
        format!(
            "line {}: a value with $ in it has to stand in single quotes as a whole",
            index + 1
        )
    })
    .collect()
}

/// Whether nothing in `line` is ever put in for something else. What stands within a value that goes
/// over several lines may look like this and be none; but no such value is taken.
fn is_to_the_letter(line: &str) -> bool {
    if line.trim_start().starts_with('#') {
        return true;
    }
    let quoted = line.split_once('=').and_then(|(name, value)| {
        let (value, rest) = value.trim_start().strip_prefix('\'')?.split_once('\'')?;
        Some((name, value, rest))
    });
    quoted.is_some_and(|(name, _, rest)| {
        let comment = rest.trim_start();
        let apart = comment.len() < rest.len();
        !name.contains('$') && (comment.is_empty() || apart && comment.starts_with('#'))
    })
}

/// The reader's own words repeat the line, and with it a secret.
fn unreadable(text: &str, error: &dotenvy::Error) -> String {
    let number = match error {
        // It has the line or what of it stands behind the equals sign.
        dotenvy::Error::LineParse(part, _) => {
            let part = part.lines().next().unwrap_or_default().trim();
            text.lines().position(|line| line.contains(part))
        }
        _ => None,
    };
    let place = number.map_or("a line".to_owned(), |index| format!("line {}", index + 1));
    format!(
        "{place} is not of the form NAME=value; a value with blanks or # in it has to stand in quotes"
    )
}

/// How alike two names have to be for one to be taken for the other misspelt.
const ALIKE: f64 = 0.7;

fn suggestion(name: &str) -> String {
    let name = name.to_uppercase();
    let alike = known().map(|known| {
        let likeness = strsim::normalized_damerau_levenshtein(&name, &known);
        (likeness, known)
    });
    let best = alike.max_by(|(one, _), (other, _)| one.total_cmp(other));
    match best {
        Some((likeness, known)) if likeness >= ALIKE => format!("; is {known} meant?"),
        _ => "; docs/configuration.md lists all".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossdock::providers::Credentials;

    /// A file with every variable of every provider.
    fn whole() -> Vec<(String, String)> {
        let values = known().map(|name| {
            let value = if name.ends_with("_ENVIRONMENT") {
                "sandbox".to_owned()
            } else {
                format!("value-of-{}", name.to_lowercase())
            };
            (name, value)
        });
        values.collect()
    }

    fn text(values: &[(String, String)]) -> String {
        let lines = values
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"));
        lines.collect()
    }

    fn entry(entries: Vec<Entry>, name: &str) -> Option<Given> {
        let mut entries = entries.into_iter();
        let entry = entries.find(|entry| entry.provider.manifest().name == name);
        entry.expect("a provider").given
    }

    fn credentials(given: &Given) -> Credentials {
        serde_json::from_str(given.text().expose_secret()).expect("what the functions read")
    }

    fn faults(text: &str) -> Vec<String> {
        match read(text) {
            Ok(_) => panic!("no fault in {text}"),
            Err(faults) => faults,
        }
    }

    #[test]
    fn every_provider_is_read_as_its_functions_read_it() {
        let entries = read(&text(&whole())).expect("a good file");
        let marked = read(&format!("\u{feff}{}", text(&whole()))).expect("a good file");
        assert_eq!(entries.len(), marked.len());
        assert_eq!(entries.len(), PROVIDERS.len());
        for Entry { provider, given } in entries {
            let manifest = provider.manifest();
            let given = given.expect("it is mentioned");
            assert!(given.missing.is_empty() && given.borrowed.is_none());
            let credentials = credentials(&given);
            assert_eq!(credentials.environment, "sandbox", "{}", manifest.name);
            for credential in manifest.credentials {
                let expected = format!("value-of-{}", credential.variable.to_lowercase());
                assert_eq!(credentials.text(credential.member), expected);
            }
        }
    }

    #[test]
    fn one_provider_alone_leaves_the_others_untouched() {
        for provider in PROVIDERS {
            let manifest = provider.manifest();
            let own = |name: &str| {
                name == manifest.environment_variable()
                    || manifest.credentials.iter().any(|one| one.variable == name)
            };
            let mut values = whole();
            values.retain(|(name, _)| own(name));
            for entry in read(&text(&values)).expect("a good file") {
                let other = entry.provider.manifest();
                let mentioned = other.name == manifest.name
                    || (manifest.name, other.name) == ("square", "square_loyalty");
                assert_eq!(entry.given.is_some(), mentioned, "{}", other.name);
            }
        }
    }

    #[test]
    fn every_required_variable_is_missed_by_its_name() {
        for provider in PROVIDERS {
            let manifest = provider.manifest();
            for credential in manifest.credentials {
                for empty in [false, true] {
                    let mut values = whole();
                    values.retain_mut(|(name, value)| {
                        if name == credential.variable {
                            value.clear();
                        }
                        empty || name != credential.variable
                    });
                    let entries = read(&text(&values)).expect("a good file");
                    let given = entry(entries, manifest.name).expect("it is mentioned");
                    let missing: Vec<&str> = credential
                        .required
                        .then_some(credential.variable)
                        .into_iter()
                        .collect();
                    assert_eq!(given.missing, missing);
                }
            }
        }
    }

    #[test]
    fn every_misspelt_variable_is_told_with_the_one_that_is_meant() {
        for name in known() {
            let misspelt = name
                .replacen('_', "__", 1)
                .replace("ENVIRONMENT", "ENVIROMENT");
            let faults = faults(&format!("{misspelt}=secret-word\n"));
            assert_eq!(
                faults,
                [format!("{misspelt} is no variable; is {name} meant?")]
            );
            let lower = super::suggestion(&name.to_lowercase());
            assert_eq!(lower, format!("; is {name} meant?"));
        }
        let strange = faults("DATABASE_URL=secret-word");
        assert_eq!(
            strange,
            ["DATABASE_URL is no variable; docs/configuration.md lists all"]
        );
    }

    #[test]
    fn square_loyalty_uses_squares_application_unless_it_has_its_own() {
        let square = "SQUARE_CLIENT_ID=id\nSQUARE_CLIENT_SECRET=word\nSQUARE_ENVIRONMENT=sandbox\n";
        let given = |more: &str| {
            let entries = read(&format!("{square}{more}")).expect("a good file");
            entry(entries, "square_loyalty").expect("it is mentioned")
        };
        let shared = given("");
        assert_eq!(shared.borrowed.map(|one| one.name), Some("square"));
        assert!(!shared.mentioned);
        let moved = given("SQUARE_LOYALTY_ENVIRONMENT=production\n");
        assert!(moved.mentioned && moved.borrowed.is_some());
        let held = credentials(&shared);
        assert_eq!(
            (held.text("client_id"), held.text("client_secret")),
            ("id", "word")
        );
        assert_eq!(held.environment, "sandbox");
        // Half of an application of its own is not completed with half of another's.
        let half = given("SQUARE_LOYALTY_CLIENT_ID=own\n");
        assert_eq!(half.borrowed.map(|one| one.name), None);
        assert_eq!(half.missing, ["SQUARE_LOYALTY_CLIENT_SECRET"]);
        assert_eq!(half.environment, "production");
    }

    #[test]
    fn a_file_is_read_as_shells_read_it() {
        let text = "# the platform's own\n\nexport XERO_CLIENT_ID='id$1'  # of the app\n\
                    XERO_CLIENT_SECRET=\"word#2\"\n  XERO_ENVIRONMENT = http://localhost:8802\n";
        let given = entry(read(text).expect("a good file"), "xero").expect("it is mentioned");
        let held = credentials(&given);
        assert_eq!(held.text("client_id"), "id$1");
        assert_eq!(held.text("client_secret"), "word#2");
        assert_eq!(held.environment, "http://localhost:8802");
        assert!(!format!("{given:?}").contains("word"));
    }

    /// The value of `CARGO_PKG_NAME`, which cargo sets for the compiler and for every run of these tests.
    const SET: &str = env!("CARGO_PKG_NAME");

    /// The values of a file that is taken, as they are stored.
    fn values(text: &str) -> Vec<String> {
        let entries = read(text).unwrap_or_default().into_iter();
        let given = entries.filter_map(|entry| entry.given);
        let texts = given.flat_map(|given| given.members.into_values());
        texts
            .map(|value| value.expose_secret().to_owned())
            .collect()
    }

    #[test]
    fn what_is_in_the_environment_is_put_into_no_value() {
        let id = "XERO_CLIENT_ID=id\n";
        let secret = |value: &str| values(&format!("{id}XERO_CLIENT_SECRET={value}\n"));
        for value in [
            "pa$CARGO_PKG_NAME # it's ours",
            "pa${CARGO_PKG_NAME}",
            "$XERO_CLIENT_ID",
            "\"$CARGO_PKG_NAME\"",
            "\"'$CARGO_PKG_NAME'\"",
            "'pa'$CARGO_PKG_NAME",
            "'pa'$CARGO_PKG_NAME'ss'",
            "pa'$CARGO_PKG_NAME'",
            "'pa'#$CARGO_PKG_NAME",
            "''$CARGO_PKG_NAME",
            "\"pa\n'$CARGO_PKG_NAME'\"",
            "\"pa\nXERO_ENVIRONMENT='$CARGO_PKG_NAME'\"",
            "\"pa\n# $CARGO_PKG_NAME\n\"",
        ] {
            assert_eq!(secret(value), Vec::<String>::new(), "{value}");
        }
        for value in ["'pa$CARGO_PKG_NAME'", " '$CARGO_PKG_NAME' # it's $ours"] {
            let kept = value.split('\'').nth(1).expect("a quoted value");
            assert_eq!(secret(value), ["id", kept], "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_taken_stands_in_the_file_to_the_letter(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "$", "{", "}", "'", "\"", "\\", "#", " ", "\n", "x", "=", "CARGO_PKG_NAME",
                "XERO_CLIENT_ID", "$CARGO_PKG_NAME", "${XERO_CLIENT_ID}", "export ", "'$CARGO_PKG_NAME'",
            ]), 0..8),
        ) {
            let text = format!("XERO_CLIENT_ID=first\nXERO_CLIENT_SECRET={}\n", parts.concat());
            for value in values(&text).iter().filter(|value| *value != "first") {
                proptest::prop_assert!(!value.contains(SET) && !value.contains("first"), "{value}");
                let dollars = |text: &str| text.matches('$').count();
                if !text.contains('#') {
                    proptest::prop_assert_eq!(dollars(&text), dollars(value), "{}", text);
                }
            }
        }
    }

    #[test]
    fn a_fault_names_its_place_and_no_value() {
        let rows = [
            ("\nXERO_CLIENT_SECRET\n", "line 2"),
            ("XERO_CLIENT_SECRET=secret word\n", "line 1"),
            ("XERO_CLIENT_SECRET=\"secret\n", "is not of the form"),
            ("XERO_CLIENT_SECRET=secret$word\n", "single quotes"),
            (
                "XERO_CLIENT_SECRET='secret word'\n",
                "XERO_CLIENT_SECRET holds a blank",
            ),
            (
                "XERO_CLIENT_ID=secret\nXERO_CLIENT_ID=secret\n",
                "XERO_CLIENT_ID stands twice",
            ),
            ("XERO_ENVIRONMENT=secret\n", "XERO_ENVIRONMENT is neither"),
            (
                "XERO_ENVIRONMENT=ftp://secret\n",
                "XERO_ENVIRONMENT is neither",
            ),
            (
                "XERO_ENVIRONMENT=https://secret.example\n",
                "XERO_ENVIRONMENT is neither",
            ),
            (
                "XERO_ENVIRONMENT=secret:word\n",
                "XERO_ENVIRONMENT is neither",
            ),
        ];
        for (text, fault) in rows {
            let faults = faults(text).join("\n");
            assert!(faults.contains(fault), "{fault:?} is not in {faults:?}");
            assert!(!faults.contains("secret"), "{faults}");
        }
    }
}
