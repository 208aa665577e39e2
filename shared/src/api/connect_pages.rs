//! `/connect/…`, `/oauth/cb/…` and `/oauth/proof/…`: the stops of a merchant's browser on its way to a
//! provider, back, and on to the shop. What goes wrong is told on a page, in words.

use super::{Request, Response};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::oauth::connect::{self, Callback, Next};
use crate::portal;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use url::Origin;

/// As long as the link lives, in seconds.
const COOKIE_AGE: i64 = connect::LINK_LIFE.num_seconds();
/// Starts that one browser keeps. All headers of a request together may have 10,240 bytes
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html>), and whoever opens a link
/// over and over must not lock himself out.
const STARTS_MAX: usize = 10;
/// Most bytes of the form with a merchant's keys.
const FORM_BYTES_MAX: usize = 8 * 1024;

pub fn start<'a>(ctx: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        let segments = request.segments();
        let [_, secret] = segments.as_slice() else {
            return Err(request.unknown());
        };
        if request.method != "GET" {
            return Err(request.unknown());
        }
        match connect::start(ctx, secret).await {
            Ok(started) => {
                let public_url = ctx.config.public_url()?;
                let prefix = connect::cookie_prefix(public_url);
                let held = request.cookies.keys();
                let held: Vec<&String> = held.filter(|name| name.starts_with(prefix)).collect();
                // Their ages are not known here, so the newest start is all that is left.
                let stale = if held.len() < STARTS_MAX {
                    &[][..]
                } else {
                    &held
                };
                let stale = stale.iter().map(|name| set_cookie(public_url, name, "", 0));
                let new = (&started.cookie_name, &started.cookie);
                let new = set_cookie(public_url, new.0, new.1, COOKIE_AGE);
                let response = match started.next {
                    Next::Consent(url) => redirect(url.as_str()),
                    Next::Form {
                        manifest,
                        fields,
                        action,
                        state,
                        shop,
                    } => form(portal::keys_form(manifest, fields, &action, &state), &shop),
                };
                let cookies = stale.chain([new]);
                Ok(cookies.fold(response, |response, cookie| {
                    response.header("set-cookie", cookie)
                }))
            }
            Err(error) => page(error),
        }
    })
}

/// Lax, because the browser comes back from the provider's site.
fn set_cookie(public_url: &str, name: &str, value: &str, age_seconds: i64) -> String {
    let secure = match public_url.starts_with("https:") {
        true => "; Secure",
        false => "",
    };
    format!("{name}={value}; Path=/; Max-Age={age_seconds}; HttpOnly; SameSite=Lax{secure}")
}

pub fn callback<'a>(ctx: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        let segments = request.segments();
        let [_, _, provider, tenant] = segments.as_slice() else {
            return prove(ctx, request, &segments).await;
        };
        let posted = match request.method.as_str() {
            "GET" => false,
            "POST" if request.body.len() <= FORM_BYTES_MAX => true,
            "POST" => {
                return page(Error::new(
                    Code::PayloadTooLarge,
                    "what was entered is too long; go back and enter the keys alone",
                ));
            }
            _ => return Err(request.unknown()),
        };
        let parameters: BTreeMap<String, String> = if posted {
            url::form_urlencoded::parse(&request.body)
                .into_owned()
                .collect()
        } else {
            request.query.clone()
        };
        let state = parameters.get("state").map_or("", String::as_str);
        let cookie_name = connect::cookie_name(ctx.config.public_url()?, state);
        let cookie = request.cookies.get(&cookie_name).cloned();
        let callback = Callback {
            provider: (*provider).to_owned(),
            tenant: (*tenant).to_owned(),
            cookie,
            parameters,
            posted,
        };
        let finished = connect::finish(ctx, callback).await;
        let response = match finished.outcome {
            Ok(url) => redirect(url.as_str()),
            Err(error) => page(error)?,
        };
        match finished.is_over {
            true => forget(ctx, response, &cookie_name),
            false => Ok(response),
        }
    })
}

/// Lets the browser drop the cookie of a start that has ended, so that it makes room for others.
fn forget(ctx: &Ctx, response: Response, cookie_name: &str) -> Result<Response> {
    let cookie = set_cookie(ctx.config.public_url()?, cookie_name, "", 0);
    Ok(response.header("set-cookie", cookie))
}

/// `/oauth/proof/…`: the backend sends its user here, to see whether this is the browser that gave the
/// consent.
async fn prove(ctx: &Ctx, request: &Request, segments: &[&str]) -> Result<Response> {
    let ["oauth", "proof", secret] = segments else {
        return Err(request.unknown());
    };
    if request.method != "GET" {
        return Err(request.unknown());
    }
    match connect::prove(ctx, secret, &request.cookies).await {
        Ok(proved) => forget(ctx, redirect(proved.url.as_str()), &proved.cookie_name),
        Err(error) => page(error),
    }
}

fn redirect(url: &str) -> Response {
    Response {
        // After a posted form the browser has to go on with GET (RFC 9110 §15.4.4).
        status: 303,
        headers: vec![
            ("location", url.to_owned()),
            ("cache-control", "no-store".to_owned()),
            // The addresses on this way carry secrets, which the next site must not see.
            ("referrer-policy", "no-referrer".to_owned()),
        ],
        body: String::new(),
    }
}

/// A page with a form, which may be posted to this origin alone. From here the browser is sent on to the
/// shop; some browsers count that as a target of the form too.
fn form(body: String, shop: &Origin) -> Response {
    let mut page = Response::private_html(200, body);
    let shop = shop.ascii_serialization();
    for (name, value) in &mut page.headers {
        if *name == "content-security-policy" {
            value.push_str(&format!("; form-action 'self' {shop}"));
        }
    }
    page
}

fn page(error: Error) -> Result<Response> {
    let code = error.code();
    let words = match code {
        // What failed on our side is for the log; the browser shows a person what to do.
        Code::Internal => {
            tracing::error!(error = %error.chain(), "a page of the connect flow failed");
            "Something failed on our side, and nothing was connected by it. Go back to the shop and start \
             again; if it fails once more, try again in some minutes."
        }
        _ => error.detail(),
    };
    // A program is told of its request; the person before a page has made none.
    let title = match code {
        Code::ValidationFailed | Code::Conflict => "Nothing was connected",
        Code::PayloadTooLarge => "What was entered is too long",
        _ => code.title(),
    };
    let page = portal::message(title, words);
    Ok(Response::private_html(code.status(), page))
}
