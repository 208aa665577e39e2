//! What a stranger knows of each provider: enough to connect it, and to attack that. No code is shared
//! with what is tested.

/// One provider, and where its stand-in serves what a connect needs.
#[derive(Debug)]
pub struct Provider {
    pub name: &'static str,
    pub title: &'static str,
    pub category: &'static str,
    /// The token endpoint; absent where keys are pasted into a form of ours.
    pub token: Option<&'static str>,
    /// The first call that tells which account it is.
    pub account: &'static str,
    /// What a merchant consents to.
    pub scopes: &'static [&'static str],
    /// Whether its tokens end, so that they have to be renewed.
    pub renews: bool,
    /// What it calls itself in a callback, if it publishes that (RFC 9207).
    pub issuer: Option<&'static str>,
}

const QUICKBOOKS: Provider = Provider {
    name: "quickbooks",
    title: "QuickBooks Online",
    category: "accounting",
    token: Some("/oauth2/v1/tokens/bearer"),
    account: "/companyinfo/",
    scopes: &["com.intuit.quickbooks.accounting"],
    renews: true,
    issuer: Some("https://oauth.platform.intuit.com/op/v1"),
};

pub static PROVIDERS: [Provider; 11] = [
    QUICKBOOKS,
    Provider {
        name: "xero",
        title: "Xero",
        token: Some("/connect/token"),
        account: "/connections",
        scopes: &[
            "offline_access",
            "accounting.contacts",
            "accounting.invoices",
            "accounting.payments",
            "accounting.banktransactions",
            "accounting.settings.read",
        ],
        issuer: Some("https://identity.xero.com"),
        ..QUICKBOOKS
    },
    Provider {
        name: "salesforce",
        title: "Salesforce",
        category: "crm",
        token: Some("/services/oauth2/token"),
        account: "/services/oauth2/userinfo",
        scopes: &["api", "refresh_token", "id"],
        issuer: None,
        ..QUICKBOOKS
    },
    Provider {
        name: "hubspot",
        title: "HubSpot",
        category: "crm",
        token: Some("/oauth/2026-03/token"),
        account: "/account-info/2026-03/details",
        scopes: &[
            "oauth",
            "crm.objects.contacts.read",
            "crm.objects.contacts.write",
            "crm.objects.companies.read",
            "crm.objects.companies.write",
            "crm.objects.deals.read",
            "crm.objects.deals.write",
            "crm.objects.orders.read",
            "crm.objects.orders.write",
            "crm.objects.line_items.read",
            "crm.objects.line_items.write",
            "crm.objects.products.read",
            "crm.objects.products.write",
            "crm.schemas.contacts.write",
            "crm.schemas.deals.write",
            "crm.schemas.orders.write",
            "crm.pipelines.orders.read",
            "crm.pipelines.orders.write",
        ],
        issuer: None,
        ..QUICKBOOKS
    },
    Provider {
        name: "mailchimp",
        title: "Mailchimp",
        category: "email-marketing",
        token: Some("/oauth2/token"),
        account: "/oauth2/metadata",
        scopes: &[],
        renews: false,
        issuer: None,
    },
    Provider {
        name: "sendgrid",
        title: "SendGrid",
        category: "email-marketing",
        token: None,
        account: "/v3/scopes",
        scopes: &[],
        renews: false,
        issuer: None,
    },
    Provider {
        name: "stripe",
        title: "Stripe",
        category: "payments",
        token: Some("/oauth/token"),
        account: "/v1/account",
        scopes: &["read_write"],
        renews: false,
        issuer: None,
    },
    Provider {
        name: "paypal",
        title: "PayPal",
        category: "payments",
        token: Some("/v1/oauth2/token"),
        account: "/v1/identity/openidconnect/userinfo",
        scopes: &[
            "openid",
            "profile",
            "email",
            "https://uri.paypal.com/services/paypalattributes",
        ],
        issuer: None,
        ..QUICKBOOKS
    },
    Provider {
        name: "square",
        title: "Square",
        category: "payments",
        token: Some("/oauth2/token"),
        account: "/v2/merchants/me",
        scopes: &[
            "MERCHANT_PROFILE_READ",
            "PAYMENTS_READ",
            "PAYMENTS_WRITE",
            "ORDERS_READ",
            "ORDERS_WRITE",
            "CUSTOMERS_READ",
            "CUSTOMERS_WRITE",
            "ITEMS_READ",
        ],
        issuer: None,
        ..QUICKBOOKS
    },
    Provider {
        name: "square_loyalty",
        title: "Square Loyalty",
        category: "loyalty",
        token: Some("/oauth2/token"),
        account: "/v2/merchants/me",
        scopes: &[
            "MERCHANT_PROFILE_READ",
            "CUSTOMERS_READ",
            "CUSTOMERS_WRITE",
            "ORDERS_READ",
            "LOYALTY_READ",
            "LOYALTY_WRITE",
        ],
        issuer: None,
        ..QUICKBOOKS
    },
    Provider {
        name: "voucherify",
        title: "Voucherify",
        category: "loyalty",
        token: None,
        account: "/v1/campaigns",
        scopes: &[],
        renews: false,
        issuer: None,
    },
];

/// An account at a provider.
#[derive(Debug, Clone)]
pub struct Account {
    /// What its consent page knows it by; in QuickBooks a company's realm.
    pub id: String,
    pub name: String,
    /// The person who consents for it.
    pub user: String,
    /// What is pasted into our own form, where there is no consent page.
    pub keys: Vec<(&'static str, String)>,
    /// What a connection shows of it.
    pub tenant_id: String,
    pub tenant_name: Option<String>,
}

impl Provider {
    /// The account of this number; another number is another account of another person.
    pub fn account(&self, number: u64, name: &str) -> Account {
        let (id, user) = match self.name {
            "quickbooks" => (format!("93414539{number:011}"), String::new()),
            "xero" => (
                format!("5a1e0000-0000-4000-9000-{number:012}"),
                format!("person-{number}"),
            ),
            "salesforce" => (
                format!("00D5e0000{number:06}EAE"),
                format!("0055e0000{number:06}AAE"),
            ),
            "hubspot" => (format!("5{number:07}"), format!("7{number:07}")),
            "mailchimp" => (format!("{number:025x}"), format!("9{number:06}")),
            "stripe" => (format!("acct_1Test{number:012}"), "olive".to_owned()),
            "paypal" => (format!("PAYER{number:08}"), format!("person-{number}")),
            "sendgrid" => (format!("8{number:06}"), String::new()),
            "voucherify" => (format!("proj_{number:022}"), String::new()),
            _ => (format!("MLTEST{number:08}"), format!("person-{number}")),
        };
        let mut account = Account {
            tenant_id: id.clone(),
            tenant_name: Some(name.to_owned()),
            name: name.to_owned(),
            id,
            user,
            keys: Vec::new(),
        };
        match self.name {
            // Its organisations are told apart by their hosts.
            "salesforce" => account.tenant_name = Some("localhost".to_owned()),
            "hubspot" => account.tenant_name = Some(format!("HubSpot account {}", account.id)),
            // Log in with PayPal names the person.
            "paypal" => account.tenant_name = Some("Olive Owner".to_owned()),
            "voucherify" => {
                account.tenant_id = format!("app-{number:032}");
                account.tenant_name = None;
            }
            _ => {}
        }
        account.keys = self.new_keys(&account, number);
        account
    }

    /// Keys of `account`; another number is other keys of the same account.
    pub fn new_keys(&self, account: &Account, number: u64) -> Vec<(&'static str, String)> {
        match self.name {
            "sendgrid" => {
                let key = format!("SG.test-key-{number:010}.test-secret-{number:031}");
                vec![("api_key", key)]
            }
            "voucherify" => vec![
                ("region", "eu".to_owned()),
                ("app_id", account.tenant_id.clone()),
                ("app_token", format!("token-{number:032}")),
            ],
            _ => Vec::new(),
        }
    }

    /// The member of an account's keys that is a secret.
    pub fn secret_key(&self) -> &'static str {
        match self.name {
            "sendgrid" => "api_key",
            _ => "app_token",
        }
    }
}
