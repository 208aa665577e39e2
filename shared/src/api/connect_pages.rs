//! `/connect/…` and `/oauth/cb/…`: the two stops of a merchant's browser on its way to a provider and
//! back. What goes wrong is told on a page, in words.

use super::{Request, Response};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::oauth::connect::{self, COOKIE, Callback};
use crate::portal;
use futures::future::BoxFuture;

/// As long as the link lives, in seconds.
const COOKIE_AGE: u32 = 30 * 60;

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
                // Lax, because the browser comes back from the provider's site.
                let secure = if ctx.config.public_url()?.starts_with("https") {
                    "; Secure"
                } else {
                    ""
                };
                let cookie = format!(
                    "{COOKIE}={}; Path=/oauth/cb; Max-Age={COOKIE_AGE}; HttpOnly; SameSite=Lax{secure}",
                    started.cookie
                );
                Ok(redirect(started.authorize_url.as_str()).header("set-cookie", cookie))
            }
            Err(error) => page(error),
        }
    })
}

pub fn callback<'a>(ctx: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        let segments = request.segments();
        let [_, _, provider, tenant] = segments.as_slice() else {
            return Err(request.unknown());
        };
        if request.method != "GET" {
            return Err(request.unknown());
        }
        let parameter = |name: &str| request.query.get(name).cloned();
        let manifest = crate::providers::accounting(provider).map(|p| p.manifest());
        let callback = Callback {
            provider: (*provider).to_owned(),
            tenant: (*tenant).to_owned(),
            state: parameter("state"),
            code: parameter("code"),
            error: parameter("error"),
            tenant_id: manifest.and_then(|manifest| parameter(manifest.tenant_parameter)),
            cookie: request.cookies.get(COOKIE).cloned(),
        };
        match connect::finish(ctx, callback).await {
            Ok(url) => Ok(redirect(url.as_str())),
            Err(error) => page(error),
        }
    })
}

fn redirect(url: &str) -> Response {
    Response {
        status: 302,
        headers: vec![
            ("location", url.to_owned()),
            ("cache-control", "no-store".to_owned()),
            // The addresses on this way carry secrets, which the next site must not see.
            ("referrer-policy", "no-referrer".to_owned()),
        ],
        body: String::new(),
    }
}

fn page(error: Error) -> Result<Response> {
    // Failures of ours are for the log and the common shape, not for a page of their own.
    if error.code() == Code::Internal {
        return Err(error);
    }
    let page = portal::message(error.code().title(), error.detail());
    Ok(Response::html(error.code().status(), page).header("cache-control", "no-store"))
}
