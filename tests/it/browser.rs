//! A merchant's browser and the backend that sends it: how any provider is connected.

use crate::providers::{Account, PROVIDERS, Provider};
use crate::world::{Reply, Shop, World, query};
use reqwest::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use reqwest::{Method, Url};
use serde_json::{Value, json};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// What a browser brings back from a consent: an address to open or, where there is no consent page,
/// a form of ours to post.
#[derive(Debug, Clone)]
pub struct Callback {
    pub url: Url,
    pub form: Option<Vec<(String, String)>>,
}

impl Callback {
    fn parameters(&self) -> Vec<(String, String)> {
        match &self.form {
            Some(form) => form.clone(),
            None => self.url.query_pairs().into_owned().collect(),
        }
    }

    fn of(&self, parameters: Vec<(String, String)>) -> Callback {
        let mut callback = self.clone();
        match &mut callback.form {
            Some(form) => *form = parameters,
            None => {
                callback
                    .url
                    .query_pairs_mut()
                    .clear()
                    .extend_pairs(parameters);
            }
        }
        callback
    }

    pub fn get(&self, name: &str) -> String {
        let mut all = self.parameters().into_iter();
        all.find(|(key, _)| key == name)
            .map(|(_, value)| value)
            .unwrap_or_default()
    }

    /// The same without one parameter.
    pub fn without(&self, name: &str) -> Callback {
        let mut parameters = self.parameters();
        parameters.retain(|(key, _)| key != name);
        self.of(parameters)
    }

    /// The same with another value of one parameter, or with one more.
    pub fn with(&self, name: &str, value: &str) -> Callback {
        let mut parameters = self.without(name).parameters();
        parameters.push((name.to_owned(), value.to_owned()));
        self.of(parameters)
    }

    /// The same, sent to the address of another provider or tenant: the last two parts of the path.
    pub fn to(&self, provider: &str, tenant: &str) -> Callback {
        let mut callback = self.clone();
        callback
            .url
            .set_path(&format!("/oauth/cb/{provider}/{tenant}"));
        callback
    }

    /// The part of the address that names the deployment.
    pub fn tenant(&self) -> String {
        let last = self.url.path().rsplit('/').next();
        last.unwrap_or_default().to_owned()
    }

    /// A form's parameters in the address, or the other way round.
    pub fn turned(&self) -> Callback {
        let parameters = self.parameters();
        let mut url = self.url.clone();
        url.set_query(None);
        let form = match self.form {
            Some(_) => {
                url.query_pairs_mut().extend_pairs(parameters);
                None
            }
            None => Some(parameters),
        };
        Callback { url, form }
    }
}

/// A consent that was given, and the browser that holds it.
pub struct Visit {
    pub link: Url,
    pub callback: Callback,
    pub cookie: String,
}

impl World {
    /// A new merchant, registered, with an account of its own that it is not connected to yet.
    pub async fn shop_at(&self, provider: &'static Provider, test: &str) -> Shop {
        let number = self.number();
        let shop = Shop {
            merchant: format!("{test}-{number}"),
            provider,
            account: provider.account(number, &format!("Company of {test}")),
        };
        let new =
            json!({ "id": shop.merchant, "name": format!("Shop of {test}"), "currency": "USD" });
        self.post("/api/v1/merchants", &new).await.expect(201);
        self.open_account(&shop).await;
        shop
    }

    /// A new merchant with a company in QuickBooks.
    pub async fn shop(&self, test: &str) -> Shop {
        self.shop_at(&PROVIDERS[0], test).await
    }

    /// A merchant that is connected to its company in QuickBooks.
    pub async fn connected_shop(&self, test: &str) -> Shop {
        let shop = self.shop(test).await;
        self.connect(&shop).await;
        shop
    }

    async fn open_account(&self, shop: &Shop) {
        let Account { id, name, user, .. } = &shop.account;
        if shop.provider.name == "quickbooks" {
            let company = json!({ "realm": id, "name": name });
            self.at(shop.provider, "realms", Some(company)).await;
            return;
        }
        let account = json!({ "id": id, "name": name, "user": user });
        self.at(shop.provider, "accounts", Some(account)).await;
        self.make_keys(shop).await;
    }

    /// Makes the keys of an account valid, where it has any.
    pub async fn make_keys(&self, shop: &Shop) {
        let part = |name: &str| {
            let found = shop.account.keys.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.as_str())
        };
        let key = match (part("api_key"), part("app_id"), part("app_token")) {
            (Some(key), ..) => key.to_owned(),
            (_, Some(id), Some(token)) => format!("{id}:{token}"),
            _ => return,
        };
        self.secret(part(shop.provider.secret_key()).expect("a secret"));
        let new = json!({ "key": key, "account": shop.account.id });
        self.at(shop.provider, "keys", Some(new)).await;
    }

    /// The control port of a provider's stand-in.
    pub async fn at(&self, provider: &Provider, path: &str, body: Option<Value>) -> Value {
        let base = self.stack.urls.provider(provider.name);
        self.control(base, path, body).await.json()
    }

    /// Connects `shop` as its merchant does, and returns the connection's id.
    pub async fn connect(&self, shop: &Shop) -> String {
        let (id, confirmation) = self.pending(shop).await;
        let live = self.confirm(shop, &id, &confirmation).await;
        assert_eq!(live.expect(200).json()["status"], "live");
        id
    }

    /// A connection that waits for its confirmation.
    pub async fn pending(&self, shop: &Shop) -> (String, String) {
        let visit = self.visit(shop).await;
        let back = self.bring(&visit.callback, Some(&visit.cookie)).await;
        let back = back.expect(303);
        // The browser goes on to the backend's page.
        self.open(&back.location(), None).await.expect(200);
        self.brought_back(&back)
    }

    /// A consent that is not brought back yet.
    pub async fn visit(&self, shop: &Shop) -> Visit {
        let link = self.link(shop).await;
        self.visit_by(shop, link).await
    }

    /// The same, by a link that is there already.
    pub async fn visit_by(&self, shop: &Shop, link: Url) -> Visit {
        let (at, cookie) = self.start(&link).await;
        let callback = self.approve(shop, &at).await;
        Visit {
            link,
            callback,
            cookie,
        }
    }

    /// A connect link.
    pub async fn link(&self, shop: &Shop) -> Url {
        let Provider { name, category, .. } = shop.provider;
        let path = format!("/api/v1/integrations/{category}/{name}/connect");
        self.link_at(shop, &path).await
    }

    /// A link that repairs a connection.
    pub async fn reconnect(&self, shop: &Shop, id: &str) -> Url {
        let category = shop.provider.category;
        let path = format!("/api/v1/integrations/{category}/{id}/reconnect");
        self.link_at(shop, &path).await
    }

    async fn link_at(&self, shop: &Shop, path: &str) -> Url {
        let return_url = format!("{}/connected", self.stack.urls.receiver);
        let wish = json!({ "merchant_id": shop.merchant, "return_url": return_url });
        let link = self.post(path, &wish).await.expect(201).json();
        let url: Url = link["url"].as_str().expect("a URL").parse().expect("a URL");
        self.secret(url.path().rsplit('/').next().expect("a last segment"));
        url
    }

    /// Opens a page as a browser with at most this one cookie does.
    pub async fn open(&self, url: &Url, cookie: Option<&str>) -> Reply {
        let callback = Callback {
            url: url.clone(),
            form: None,
        };
        self.bring(&callback, cookie).await
    }

    /// Opens a connect link; returns where the browser goes on, and the cookie. That is the consent
    /// page or, with `state` as its query, the address of our own form.
    pub async fn start(&self, link: &Url) -> (Url, String) {
        let reply = self.open(link, None).await;
        let set = reply.header(SET_COOKIE.as_str());
        for part in ["HttpOnly", "SameSite=Lax", "Path=/;"] {
            assert!(set.contains(part), "{part} is not in {set}: {reply:?}");
        }
        let cookie = set.split(';').next().expect("a pair").to_owned();
        self.secret(cookie.split_once('=').expect("a pair").1);
        let at = match reply.status {
            303 => reply.location(),
            200 => {
                let mut action: Url = between(&reply.body, " action=\"", "\"")
                    .parse()
                    .expect("an address");
                let state = between(&reply.body, "name=\"state\" value=\"", "\"");
                action.query_pairs_mut().append_pair("state", &state);
                action
            }
            other => panic!("{other}: {}", reply.body),
        };
        self.secret(&query(&at, "state"));
        (at, cookie)
    }

    /// Gives the consent, or fills in the form.
    pub async fn approve(&self, shop: &Shop, at: &Url) -> Callback {
        if shop.provider.token.is_some() {
            let callback = self.decide(at, &shop.account, "approve").await;
            self.secret(&callback.get("code"));
            return callback;
        }
        let mut form = vec![("state".to_owned(), query(at, "state"))];
        let keys = shop.account.keys.iter();
        form.extend(keys.map(|(name, value)| ((*name).to_owned(), value.clone())));
        let mut url = at.clone();
        url.set_query(None);
        Callback {
            url,
            form: Some(form),
        }
    }

    /// Presses a button of the consent page; returns where the provider sends the browser.
    pub async fn decide(&self, at: &Url, account: &Account, decision: &str) -> Callback {
        let page = self.open(at, None).await.expect(200);
        assert!(page.body.contains(&account.id), "the account is offered");
        let mut target = at.clone();
        target.set_path(&format!("{}/decision", at.path()));
        target.set_query(None);
        let mut form: Vec<(String, String)> = at.query_pairs().into_owned().collect();
        form.push(("account".to_owned(), account.id.clone()));
        form.push(("decision".to_owned(), decision.to_owned()));
        let callback = Callback {
            url: target,
            form: Some(form),
        };
        let sent = self.bring(&callback, None).await;
        Callback {
            url: sent.expect(302).location(),
            form: None,
        }
    }

    /// The browser comes back, with at most this one cookie.
    pub async fn bring(&self, callback: &Callback, cookie: Option<&str>) -> Reply {
        let mut headers: Vec<(&str, &str)> = cookie
            .iter()
            .map(|cookie| (COOKIE.as_str(), *cookie))
            .collect();
        let url = callback.url.as_str();
        let reply = match &callback.form {
            None => self.send(Method::GET, url, &headers, None).await,
            Some(form) => {
                headers.push((CONTENT_TYPE.as_str(), FORM.1));
                let body = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(form)
                    .finish();
                self.send(Method::POST, url, &headers, Some(body)).await
            }
        };
        // Which browser holds which confirmation, for when the backend confirms it.
        if let (303, Some(cookie)) = (reply.status, cookie) {
            let location = reply.location();
            let mut parameters = location.query_pairs();
            if let Some((_, confirmation)) = parameters.find(|(name, _)| name == "confirmation") {
                self.remember_browser(&confirmation, cookie);
            }
        }
        reply
    }

    /// The connection and the confirmation that a finished consent hands to the backend's page.
    pub fn brought_back(&self, reply: &Reply) -> (String, String) {
        let url = reply.location();
        assert!(url.as_str().starts_with(&self.stack.urls.receiver), "{url}");
        assert_eq!(query(&url, "status"), "pending");
        let confirmation = query(&url, "confirmation");
        self.secret(&confirmation);
        (query(&url, "connection_id"), confirmation)
    }

    /// The backend shows a confirmation, and its user's browser follows. Returns the connection as it is
    /// then, or the refusal.
    pub async fn confirm(&self, shop: &Shop, id: &str, confirmation: &str) -> Reply {
        let reply = self.ask_to_confirm(shop, id, confirmation).await;
        if reply.status != 200 {
            return reply;
        }
        if let Some(url) = reply.json()["continue_url"].as_str() {
            let url: Url = url.parse().expect("a URL");
            let cookie = self.browser_of(confirmation).expect("a browser brought it");
            let back = self.prove(&url, Some(&cookie)).await;
            if back.status != 303 {
                return back;
            }
            let at = back.location();
            assert!(at.as_str().starts_with(&self.stack.urls.receiver), "{at}");
            assert_eq!(query(&at, "connection_id"), id);
            assert_ne!(query(&at, "status"), "pending");
            assert!(!at.as_str().contains(confirmation), "{at}");
        }
        let category = shop.provider.category;
        let path = format!(
            "/api/v1/integrations/{category}/{id}?merchant_id={}",
            shop.merchant
        );
        self.get(&path).await
    }

    /// The merchant gives a connection up.
    pub async fn disconnect(&self, shop: &Shop, id: &str) {
        let category = shop.provider.category;
        let path = format!("/api/v1/integrations/{category}/{id}/disconnect");
        let body = json!({ "merchant_id": shop.merchant });
        self.post(&path, &body).await.expect(200);
    }

    /// A browser at the address to which the backend sends its user.
    pub async fn prove(&self, url: &Url, cookie: Option<&str>) -> Reply {
        self.secret(url.path().rsplit('/').next().expect("a last segment"));
        self.open(url, cookie).await
    }

    /// Where the backend sends its user after it has confirmed.
    pub async fn continue_url(&self, shop: &Shop, id: &str, confirmation: &str) -> Url {
        let asked = self.ask_to_confirm(shop, id, confirmation).await;
        let asked = asked.expect(200).json();
        let url = asked["continue_url"].as_str().expect("it is not live yet");
        url.parse().expect("a URL")
    }

    /// The backend shows a confirmation.
    pub async fn ask_to_confirm(&self, shop: &Shop, id: &str, confirmation: &str) -> Reply {
        let category = shop.provider.category;
        let path = format!("/api/v1/integrations/{category}/{id}/confirm");
        let body = json!({ "merchant_id": shop.merchant, "confirmation": confirmation });
        self.post(&path, &body).await
    }

    /// What the API shows of a merchant's connections.
    pub async fn connections(&self, shop: &Shop) -> Vec<Value> {
        let path = format!("/api/v1/integrations?merchant_id={}", shop.merchant);
        let list = self.get(&path).await.expect(200).json();
        list["data"].as_array().expect("a list").clone()
    }
}

/// The text between two others, as a browser reads it out of markup.
fn between(text: &str, before: &str, after: &str) -> String {
    let found = text.split_once(before).map(|(_, rest)| rest);
    let found = found.and_then(|rest| rest.split_once(after));
    let (found, _) = found.unwrap_or_else(|| panic!("{before} is not in {text}"));
    found.replace("&amp;", "&")
}

/// Why a page is not the one that was wanted: the status, what happened, and what to do.
pub fn page_fault(reply: &Reply, status: u16, advice: &str) -> Option<String> {
    let wanted = [
        (reply.status == status, "the status"),
        (
            reply.header("content-type") == "text/html; charset=utf-8",
            "the type",
        ),
        (reply.header("cache-control") == "no-store", "no-store"),
        (
            reply.header("referrer-policy") == "no-referrer",
            "no referrer",
        ),
        (
            reply
                .header("content-security-policy")
                .contains("default-src 'none'"),
            "the policy",
        ),
        (reply.body.contains("<h1>"), "a title"),
        (reply.body.contains(advice), "the advice"),
    ];
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(is, _)| !is)
        .map(|(_, what)| *what)
        .collect();
    (!missing.is_empty()).then(|| {
        let text = reply.body.split("<body>").last().unwrap_or_default();
        format!(
            "not {missing:?} of {status} {advice:?}: {} {} {text}",
            reply.status,
            reply.header("location")
        )
    })
}

/// A page for people: the status, what happened, and what to do.
#[track_caller]
pub fn is_page(reply: &Reply, status: u16, advice: &str) {
    if let Some(fault) = page_fault(reply, status, advice) {
        panic!("{fault}");
    }
}
