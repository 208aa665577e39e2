//! Mailchimp's audience webhooks (<https://mailchimp.com/developer/marketing/guides/sync-audience-data-webhooks/>).
//! Nothing is signed: who knows the whole address, with the secret in its query, may send. So nothing
//! that a body says may be believed before it is read over there. When an address is saved Mailchimp
//! asks whether anybody is there, with a `GET` or with an empty body.

use crate::providers::hooks::{Delivery, Hooks, Proof, Rule, named};

pub struct Webhooks;

impl Hooks for Webhooks {
    fn key(&self) -> &'static str {
        "webhook_secret"
    }

    fn rule(&self) -> Rule {
        Rule::Bearer
    }

    fn proof<'a>(&self, delivery: &Delivery<'a>, _: &str) -> Option<Proof<'a>> {
        Some(Proof {
            signatures: vec![delivery.query.get("secret")?],
            signed: Vec::new(),
            at: None,
            certificate: None,
        })
    }

    /// There is no id; the time stands in the body.
    fn event(&self, body: &[u8]) -> Option<String> {
        named(None, body)
    }

    fn probes(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::hooks::{Verdict, judge};
    use chrono::DateTime;
    use secrecy::SecretString;
    use std::collections::BTreeMap;

    #[test]
    fn the_secret_is_the_whole_proof() {
        let judged = |query: &[(&str, &str)], key: &str| {
            let query = query.iter();
            let query = query.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let (query, headers) = (query.collect(), BTreeMap::new());
            let delivery = Delivery {
                method: "POST",
                url: "",
                query: &query,
                headers: &headers,
                body: b"type=subscribe&fired_at=2026-04-25+14%3A30%3A00",
            };
            let Some(proof) = Webhooks.proof(&delivery, key) else {
                return Verdict::Wrong;
            };
            let (key, now) = (SecretString::from(key), DateTime::UNIX_EPOCH);
            judge(&Webhooks, &proof, &key, None, now)
        };
        assert_eq!(judged(&[("secret", "long")], "long"), Verdict::Good);
        for (query, key) in [
            (&[("secret", "longer")][..], "long"),
            (&[("secret", "lon")], "long"),
            (&[("secret", "")], "long"),
            (&[("secret", "")], ""),
            (&[("Secret", "long")], "long"),
            (&[], "long"),
        ] {
            assert_eq!(judged(query, key), Verdict::Wrong, "{query:?}");
        }
    }
}
