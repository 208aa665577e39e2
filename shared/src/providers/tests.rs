//! What holds for every provider of the registry, whoever adds one.

use super::*;
use std::collections::BTreeSet;

const STAND_IN: &str = "http://localhost:1";
/// A word that stands in every secret of these tests.
const MARK: &str = "secretword";

fn manifests() -> impl Iterator<Item = &'static Manifest> {
    PROVIDERS.iter().map(|provider| provider.manifest())
}

/// Credentials with every member.
fn credentials(manifest: &Manifest) -> Credentials {
    let mut secret = json!({});
    for credential in manifest.credentials {
        secret[credential.member] = json!(format!("{}-{MARK}", credential.member));
    }
    serde_json::from_value(secret).unwrap()
}

/// A grant with everything that any provider looks at.
fn grant(manifest: &Manifest) -> Grant {
    let fields = match &manifest.consent {
        Consent::Keys(fields) => *fields,
        Consent::Code(_) => &[],
    };
    let keys = fields.iter().map(|field| {
        let value = field.choices.last().copied();
        let value = value.map_or_else(|| format!("SG.{MARK}.{MARK}"), str::to_owned);
        (field.name.to_owned(), SecretString::from(value))
    });
    let facts = [
        ("realmId", "9341453900000000001"),
        ("instance_url", "https://demo.my.salesforce.com"),
    ];
    Grant {
        access: SecretString::from(format!("access-{MARK}")),
        refresh: Some(SecretString::from(format!("refresh-{MARK}"))),
        keys: keys.collect(),
        facts: facts
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect(),
    }
}

/// Every request that connecting a merchant or setting the platform up sends, `site` given.
fn requests(provider: &dyn Provider, site: &Site) -> Vec<Request> {
    let manifest = provider.manifest();
    let (credentials, grant) = (credentials(manifest), grant(manifest));
    let account = Account {
        id: "account".to_owned(),
        name: None,
        api: None,
        reference: Some("reference".to_owned()),
    };
    let accounts = provider.account_requests(site, &grant).into_iter();
    let mut requests: Vec<Request> = accounts
        .map(|request| provider.authorize(request, &grant))
        .collect();
    assert!(!requests.is_empty(), "{} proves no account", manifest.name);
    for shared in [false, true] {
        requests.extend(provider.revoke(&Revocation {
            site,
            credentials: &credentials,
            grant: &grant,
            account: &account,
            shared,
        }));
    }
    requests.extend(provider.credentials_request(site, &credentials));
    requests
}

#[test]
fn names_are_unique_and_fit_into_paths_and_variables() {
    let mut seen = BTreeSet::new();
    for manifest in manifests() {
        let Manifest { name, title, .. } = manifest;
        assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(fits), "{name}");
        assert!(!title.trim().is_empty(), "{name} has no title");
        assert!(
            seen.insert(*name) && seen.insert(*title),
            "{name} stands twice"
        );
        let found = provider(name).map(|provider| provider.manifest().name);
        assert_eq!(found, Some(*name));
    }
    assert!(provider("nobody").is_none());
    for provider in PROVIDERS {
        let Manifest { name, category, .. } = provider.manifest();
        let keeps_books = provider.accounting().map(|one| one.manifest().name);
        let wanted = (*category == Category::Accounting).then_some(*name);
        assert_eq!(keeps_books, wanted, "{name}");
    }
}

#[test]
fn addresses_are_https_and_whole() {
    for manifest in manifests() {
        for hosts in [&manifest.production, &manifest.sandbox] {
            let oauth = manifest.code_flow().is_some();
            assert_eq!(hosts.authorize.is_empty(), !oauth, "{}", manifest.name);
            assert_eq!(hosts.token.is_empty(), !oauth, "{}", manifest.name);
            assert!(!hosts.api.is_empty(), "{}", manifest.name);
            let all = [hosts.authorize, hosts.token, hosts.revoke, hosts.api];
            for text in all.into_iter().filter(|text| !text.is_empty()) {
                let url: Url = text.parse().unwrap();
                assert_eq!(url.scheme(), "https", "{text}");
                assert!(url.port().is_none() && url.username().is_empty(), "{text}");
                assert!(url.query().is_none() && url.fragment().is_none(), "{text}");
            }
        }
        for domain in manifest.api_domains {
            assert!(domain.contains('.') && !domain.starts_with('.'), "{domain}");
        }
    }
}

#[test]
fn environments_are_two_words_or_an_address() {
    for manifest in manifests() {
        for known in [
            "production",
            "sandbox",
            STAND_IN,
            "http://LOCALHOST:1/",
            "https://127.0.0.1",
            "http://127.9.9.9:80",
            "http://[::1]:1",
        ] {
            assert!(manifest.site(known).is_some(), "{}: {known}", manifest.name);
        }
        for unknown in [
            "",
            "Production",
            "sandbx",
            "sandbox:1",
            "ftp://localhost",
            "https://stand-in.example",
            "http://localhost.example",
            "http://localhost@stand-in.example",
            "http://127.0.0.1.stand-in.example",
            "http://10.0.0.1",
            "http://169.254.169.254",
            "http://0.0.0.0",
            "http://[::]",
            "http://[::ffff:10.0.0.1]",
        ] {
            assert!(
                manifest.site(unknown).is_none(),
                "{}: {unknown}",
                manifest.name
            );
        }
    }
}

#[test]
fn a_stand_in_serves_every_address() {
    let base: Url = STAND_IN.parse().unwrap();
    for provider in PROVIDERS {
        let manifest = provider.manifest();
        let site = manifest.site(STAND_IN).unwrap();
        let other = site.at("https://elsewhere.example/a?b=c").unwrap();
        for url in [
            &site.authorize,
            &site.token,
            &site.revoke,
            &site.api,
            &other,
        ] {
            assert_eq!(url.origin(), base.origin(), "{}: {url}", manifest.name);
        }
        assert_eq!(other.as_str(), "http://localhost:1/a?b=c");
        let production = manifest.site("production").unwrap();
        assert_eq!(site.token.path(), production.token.path());
        for request in requests(*provider, &site) {
            let url = request.url;
            assert_eq!(url.origin(), base.origin(), "{}: {url}", manifest.name);
        }
    }
}

#[test]
fn requests_go_to_the_provider_and_show_no_secret() {
    for provider in PROVIDERS {
        let manifest = provider.manifest();
        for (environment, hosts) in [
            ("production", &manifest.production),
            ("sandbox", &manifest.sandbox),
        ] {
            let site = manifest.site(environment).unwrap();
            let own = [hosts.authorize, hosts.token, hosts.revoke, hosts.api]
                .into_iter()
                .filter_map(|text| Some(text.parse::<Url>().ok()?.origin()));
            let own: Vec<_> = own.collect();
            for request in requests(*provider, &site) {
                let url = &request.url;
                let admitted = own.contains(&url.origin()) || site.admits(url);
                assert!(admitted, "{} {environment}: {url}", manifest.name);
                // Addresses are logged on their way, headers and bodies are not.
                assert!(!url.as_str().contains(MARK), "{}: {url}", manifest.name);
                let shown = format!("{:?}", request.authorization);
                assert!(
                    !shown.contains(&format!("refresh-{MARK}")) && !shown.contains("access-"),
                    "{}: {shown}",
                    manifest.name
                );
            }
        }
    }
}

#[test]
fn only_the_providers_own_domains_are_admitted() {
    let url = |text: String| text.parse::<Url>().unwrap();
    for manifest in manifests() {
        for environment in ["production", "sandbox"] {
            let site = manifest.site(environment).unwrap();
            let mut foreign = vec!["example.com".to_owned(), "localhost".to_owned()];
            for domain in manifest.api_domains {
                for good in [
                    (*domain).to_owned(),
                    format!("a.{domain}"),
                    format!("a.b.{domain}"),
                ] {
                    assert!(site.admits(&url(format!("https://{good}/x"))), "{good}");
                    assert!(!site.admits(&url(format!("http://{good}/x"))), "{good}");
                    assert!(
                        !site.admits(&url(format!("https://{good}:8443/x"))),
                        "{good}"
                    );
                }
                foreign.extend([
                    format!("evil{domain}"),
                    format!("evil-{domain}"),
                    format!("{domain}.example.com"),
                    format!("{domain}."),
                    domain.replacen('.', "-", 1),
                ]);
            }
            for host in foreign {
                assert!(!site.admits(&url(format!("https://{host}/"))), "{host}");
            }
        }
        let site = manifest.site(STAND_IN).unwrap();
        assert!(site.admits(&url(format!("{STAND_IN}/x"))));
        for other in [
            "http://localhost:2/",
            "https://localhost:1/",
            "https://example.com/",
        ] {
            assert!(!site.admits(&url(other.to_owned())), "{other}");
        }
    }
}

#[test]
fn every_credential_has_a_variable_of_its_own() {
    let mut variables = BTreeSet::new();
    for provider in PROVIDERS {
        let manifest = provider.manifest();
        let prefix = format!("{}_", manifest.name.to_uppercase());
        let mut members = BTreeSet::from(["environment"]);
        for credential in manifest.credentials {
            let Credential {
                member, variable, ..
            } = credential;
            assert!(members.insert(member), "{}: {member}", manifest.name);
            assert!(variables.insert((*variable).to_owned()), "{variable}");
            assert!(variable.starts_with(&prefix), "{variable}");
            let fits = |c: char| c.is_ascii_uppercase() || c == '_';
            assert!(variable.chars().all(fits), "{variable}");
        }
        assert!(variables.insert(manifest.environment_variable()));
        if manifest.code_flow().is_some() {
            for needed in ["client_id", "client_secret"] {
                let mut credentials = manifest.credentials.iter();
                let found = credentials.any(|one| one.member == needed && one.required);
                assert!(found, "{} lacks {needed}", manifest.name);
            }
        }
        // What is set up can be checked.
        let site = manifest.site(STAND_IN).unwrap();
        let request = provider.credentials_request(&site, &credentials(manifest));
        // A key of webhooks cannot be: the provider signs with it and takes no question about it.
        let mut members = manifest.credentials.iter().map(|one| one.member);
        let checked = members.any(|member| !member.starts_with("webhook_"));
        assert_eq!(request.is_some(), checked, "{}", manifest.name);
    }
}

#[test]
fn an_application_is_shared_by_two_that_know_it() {
    for manifest in manifests() {
        if let Some(other) = manifest.shares_app_with {
            let other = provider(other).unwrap().manifest();
            assert_eq!(other.shares_app_with, Some(manifest.name));
        }
    }
}

#[test]
fn every_key_field_tells_where_its_value_is() {
    for manifest in manifests() {
        let Consent::Keys(fields) = &manifest.consent else {
            continue;
        };
        assert!(fields.iter().any(|field| field.secret), "{}", manifest.name);
        let mut names = BTreeSet::new();
        for field in *fields {
            assert!(
                names.insert(field.name),
                "{}: {}",
                manifest.name,
                field.name
            );
            assert!(
                !field.label.is_empty() && field.hint.ends_with('.'),
                "{}",
                field.name
            );
            assert!(field.choices.is_empty() || !field.secret, "{}", field.name);
        }
    }
}

#[test]
fn categories_are_read_as_they_are_written() {
    let mut words = BTreeSet::new();
    for category in Category::ALL {
        assert_eq!(Category::parse(category.as_str()), Some(category));
        assert_eq!(json!(category), json!(category.as_str()));
        assert!(words.insert(category.as_str()) && words.insert(category.switch()));
        assert!(manifests().any(|manifest| manifest.category == category));
    }
    assert_eq!(Category::parse("nothing"), None);
}

/// What a provider says to a platform that it knows, and to one that it does not: status and body.
struct Words {
    provider: &'static str,
    known: &'static [(u16, &'static str)],
    unknown: &'static [(u16, &'static str)],
}

const INVALID_GRANT: (u16, &str) = (400, r#"{"error":"invalid_grant"}"#);
const INVALID_CLIENT: (u16, &str) = (401, r#"{"error":"invalid_client"}"#);
const SQUARE_KNOWN: &[(u16, &str)] = &[(
    401,
    r#"{"errors":[{"category":"AUTHENTICATION_ERROR","code":"UNAUTHORIZED","detail":"Invalid refresh token"}]}"#,
)];
const SQUARE_UNKNOWN: &[(u16, &str)] = &[
    (
        401,
        r#"{"errors":[{"category":"AUTHENTICATION_ERROR","code":"UNAUTHORIZED","detail":"Not authorized: the client credentials are invalid"}]}"#,
    ),
    (
        401,
        r#"{"message":"Not Authorized","type":"service.not_authorized"}"#,
    ),
];

/// The shapes are those of each vendor's documentation, of which the stand-ins make theirs.
const WORDS: &[Words] = &[
    Words {
        provider: "quickbooks",
        known: &[
            INVALID_GRANT,
            (
                400,
                r#"{"error":"invalid_grant","error_description":"Incorrect or invalid refresh token"}"#,
            ),
        ],
        unknown: &[INVALID_CLIENT],
    },
    Words {
        provider: "xero",
        known: &[INVALID_GRANT],
        unknown: &[
            (400, r#"{"error":"invalid_client"}"#),
            (400, r#"{"error":"unauthorized_client"}"#),
        ],
    },
    Words {
        provider: "salesforce",
        known: &[(
            400,
            r#"{"error":"invalid_grant","error_description":"expired access/refresh token"}"#,
        )],
        unknown: &[
            (
                400,
                r#"{"error":"invalid_client_id","error_description":"client identifier invalid"}"#,
            ),
            (
                400,
                r#"{"error":"invalid_client","error_description":"invalid client credentials"}"#,
            ),
        ],
    },
    Words {
        provider: "hubspot",
        known: &[
            (
                400,
                r#"{"error":"invalid_grant","status":"BAD_REFRESH_TOKEN","message":"refresh token is invalid, expired or revoked"}"#,
            ),
            (
                400,
                r#"{"status":"BAD_REFRESH_TOKEN","message":"missing or invalid refresh token"}"#,
            ),
        ],
        unknown: &[
            (
                400,
                r#"{"error":"invalid_client","status":"BAD_CLIENT_SECRET","message":"missing or invalid client secret"}"#,
            ),
            // Whatever stands beside it.
            (
                400,
                r#"{"error":"invalid_grant","status":"BAD_CLIENT_ID","message":"missing or invalid client id"}"#,
            ),
        ],
    },
    Words {
        provider: "mailchimp",
        known: &[INVALID_GRANT],
        unknown: &[INVALID_CLIENT, (400, r#"{"error":"invalid_request"}"#)],
    },
    Words {
        provider: "sendgrid",
        known: &[(200, r#"{"scopes":["mail.send"]}"#)],
        unknown: &[
            (
                401,
                r#"{"errors":[{"message":"The provided authorization grant is invalid, expired, or revoked","field":null}]}"#,
            ),
            (403, r#"{"errors":[{"message":"access forbidden"}]}"#),
        ],
    },
    Words {
        provider: "stripe",
        known: &[(200, r#"{"id":"acct_1","object":"account"}"#)],
        unknown: &[
            (
                401,
                r#"{"error":{"message":"Invalid API Key provided","type":"invalid_request_error"}}"#,
            ),
            (
                403,
                r#"{"error":{"message":"The provided key does not have access","type":"invalid_request_error"}}"#,
            ),
        ],
    },
    Words {
        provider: "paypal",
        known: &[(
            200,
            r#"{"access_token":"A21","token_type":"Bearer","expires_in":32400}"#,
        )],
        unknown: &[(
            401,
            r#"{"error":"invalid_client","error_description":"Client Authentication failed"}"#,
        )],
    },
    Words {
        provider: "square",
        known: SQUARE_KNOWN,
        unknown: SQUARE_UNKNOWN,
    },
    Words {
        provider: "square_loyalty",
        known: SQUARE_KNOWN,
        unknown: SQUARE_UNKNOWN,
    },
    // It asks nothing of the platform; whatever its address answers is judged as everywhere.
    Words {
        provider: "voucherify",
        known: &[],
        unknown: &[(401, "{}")],
    },
];

#[test]
fn every_provider_tells_a_platform_that_it_knows_from_another() {
    let listed: Vec<&str> = WORDS.iter().map(|words| words.provider).collect();
    let all: Vec<&str> = manifests().map(|manifest| manifest.name).collect();
    assert_eq!(listed, all);
    for Words {
        provider: name,
        known,
        unknown,
    } in WORDS
    {
        let provider = provider(name).unwrap();
        let judge = |(status, body): &(u16, &str)| {
            provider.read_credentials(&Response {
                status: *status,
                headers: Vec::new(),
                body: body.as_bytes().to_vec(),
            })
        };
        for answer in *known {
            assert_eq!(judge(answer), Ok(()), "{name}: {answer:?}");
        }
        for answer in *unknown {
            let fault = judge(answer);
            let refused = matches!(fault, Err(Fault::Unauthorized | Fault::Refused { .. }));
            assert!(refused, "{name}: {answer:?} is {fault:?}");
        }
        // No proof either way: a page of somebody in between, throttling, trouble.
        let trouble = [
            (200, "<html>Please sign in</html>"),
            (429, r#"{"error":"invalid_grant"}"#),
            (429, "{}"),
            (500, r#"{"error":"invalid_grant"}"#),
            (503, ""),
        ];
        for answer in &trouble {
            let fault = judge(answer);
            assert!(
                matches!(fault, Err(Fault::Later { .. })),
                "{name}: {answer:?} is {fault:?}"
            );
        }
        let endless = format!(r#"{{"error":"{}\n"}}"#, "x".repeat(500));
        let Err(Fault::Refused { code, .. }) = judge(&(400, &endless)) else {
            panic!("{name} takes any word for a proof");
        };
        assert!(
            code.len() <= 64 && code.bytes().all(|b| b.is_ascii_graphic()),
            "{name}"
        );
    }
}
