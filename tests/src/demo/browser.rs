//! The merchant's browser: it keeps cookies, follows redirects one by one so that each can be
//! shown, and sends the form on a page. Nothing in it knows whose pages these are.

use super::{Outcome, say};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, COOKIE, HeaderMap, LOCATION, SET_COOKIE};
use url::Url;

const HOPS_MAX: usize = 10;
/// Parts of an address that are longer than this are secrets, or as good as secrets.
const SHOWN_CHARS_MAX: usize = 20;

pub struct Browser {
    http: reqwest::Client,
    jar: Jar,
    /// Whether each address is shown.
    talks: bool,
}

/// A page that was reached, after all redirects.
pub struct Page {
    pub url: Url,
    pub status: u16,
    pub body: String,
}

impl Browser {
    pub fn new(http: reqwest::Client, talks: bool) -> Browser {
        Browser {
            http,
            jar: Jar::default(),
            talks,
        }
    }

    pub async fn open(&mut self, url: Url) -> Outcome<Page> {
        self.travel(Method::GET, url, None).await
    }

    /// Approves what `page` asks, by the button that says so, with `typed` in the fields of that name.
    pub async fn approve(&mut self, page: &Page, typed: &[(&str, &str)]) -> Outcome<Page> {
        let mut form = approving_form(&page.body)
            .ok_or_else(|| format!("{} shows no form that can be approved", shown(&page.url)))?;
        for (name, value) in &mut form.fields {
            if let Some((_, given)) = typed.iter().find(|(field, _)| field == name) {
                (*given).clone_into(value);
            }
        }
        let mut url = page.url.join(&form.action)?;
        let fields = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&form.fields)
            .finish();
        if form.is_post {
            return self.travel(Method::POST, url, Some(fields)).await;
        }
        url.set_query(Some(&fields));
        self.travel(Method::GET, url, None).await
    }

    async fn travel(
        &mut self,
        mut method: Method,
        mut url: Url,
        mut body: Option<String>,
    ) -> Outcome<Page> {
        for _ in 0..HOPS_MAX {
            let mut request = self.http.request(method.clone(), url.clone());
            if let Some(cookies) = self.jar.header(&url) {
                request = request.header(COOKIE, cookies);
            }
            if let Some(body) = body.take() {
                request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                request = request.body(body);
            }
            let response = request.send().await?;
            let status = response.status();
            self.jar.keep(&url, response.headers());
            if self.talks {
                say(&format!("    {} {method} {}", status.as_u16(), shown(&url)));
            }
            let target = response
                .headers()
                .get(LOCATION)
                .filter(|_| status.is_redirection());
            let Some(target) = target else {
                let body = response.text().await?;
                return Ok(Page {
                    url,
                    status: status.as_u16(),
                    body,
                });
            };
            url = url.join(target.to_str()?)?;
            // Only 307 and 308 keep the method, and no page of this flow has a reason for them.
            method = Method::GET;
        }
        Err(format!(
            "more than {HOPS_MAX} redirects, the last to {}",
            shown(&url)
        )
        .into())
    }
}

/// An address for the terminal: whole as far as it is no secret, and the names of its parameters.
fn shown(url: &Url) -> String {
    let path: Vec<String> = url
        .path()
        .split('/')
        .map(|part| match part.char_indices().nth(SHOWN_CHARS_MAX) {
            Some(_) => format!("{}…", part.chars().take(6).collect::<String>()),
            None => part.to_owned(),
        })
        .collect();
    let names: Vec<String> = url
        .query_pairs()
        .map(|(name, _)| name.into_owned())
        .collect();
    let query = if names.is_empty() {
        String::new()
    } else {
        format!("?{}", names.join("&"))
    };
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    format!("{}://{host}{port}{}{query}", url.scheme(), path.join("/"))
}

/// Cookies as RFC 6265 keeps them, as far as one visit on one machine needs it: by host and path,
/// not by port. `Secure` is not asked for, since browsers take loopback for a secure origin.
#[derive(Default)]
struct Jar {
    cookies: Vec<Cookie>,
}

struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
}

impl Jar {
    fn keep(&mut self, url: &Url, headers: &HeaderMap) {
        let host = url.host_str().unwrap_or_default();
        for header in headers.get_all(SET_COOKIE) {
            let Ok(text) = header.to_str() else { continue };
            let mut parts = text.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            // The default path is the folder of the page that set the cookie (RFC 6265 §5.1.4).
            let mut path = url
                .path()
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder)
                .to_owned();
            let mut over = false;
            for part in parts {
                let (key, given) = part.split_once('=').unwrap_or((part, ""));
                match key.to_ascii_lowercase().as_str() {
                    "path" if given.starts_with('/') => path = given.to_owned(),
                    "max-age" => over = given.parse::<i64>().is_ok_and(|seconds| seconds <= 0),
                    _ => {}
                }
            }
            let path = path.trim_end_matches('/').to_owned();
            self.cookies
                .retain(|c| c.host != host || c.name != name || c.path != path);
            if !over {
                let (host, name, value) = (host.to_owned(), name.to_owned(), value.to_owned());
                self.cookies.push(Cookie {
                    host,
                    path,
                    name,
                    value,
                });
            }
        }
    }

    fn header(&self, url: &Url) -> Option<String> {
        let pairs: Vec<String> = self
            .cookies
            .iter()
            .filter(|cookie| Some(cookie.host.as_str()) == url.host_str())
            .filter(|cookie| {
                let rest = url.path().strip_prefix(&cookie.path);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

/// What is sent when a form is approved.
#[derive(Debug, Default, PartialEq)]
struct Form {
    action: String,
    is_post: bool,
    fields: Vec<(String, String)>,
}

/// The first form of a page with a button that approves, as that button would send it.
fn approving_form(html: &str) -> Option<Form> {
    let mut form: Option<Form> = None;
    let mut approved = false;
    // The list that is being read and whether its value stands already.
    let mut select: Option<(String, bool)> = None;
    let mut rest = html;
    while let Some((_, from)) = rest.split_once('<') {
        let (tag, after) = read_tag(from);
        rest = after;
        let named = tag.attribute("name").map(str::to_owned);
        let value = tag.attribute("value").unwrap_or_default().to_owned();
        match (tag.name.as_str(), form.as_mut()) {
            ("form", _) => {
                let action = tag.attribute("action").unwrap_or_default().to_owned();
                let is_post = tag
                    .attribute("method")
                    .is_some_and(|m| m.eq_ignore_ascii_case("post"));
                form = Some(Form {
                    action,
                    is_post,
                    fields: Vec::new(),
                });
                approved = false;
            }
            ("/form", Some(_)) if approved => return form,
            ("/form", _) => form = None,
            ("input" | "button", Some(form)) => {
                let kind = tag.attribute("type").map(str::to_ascii_lowercase);
                let kind = kind.as_deref().unwrap_or(if tag.name == "button" {
                    "submit"
                } else {
                    "text"
                });
                let sent = match kind {
                    "submit" => {
                        let label = rest.split('<').next().unwrap_or_default();
                        let presses = !approved && (approves(&value) || approves(label));
                        approved |= presses;
                        presses
                    }
                    "checkbox" | "radio" => tag.attribute("checked").is_some(),
                    "button" | "reset" | "image" | "file" => false,
                    _ => true,
                };
                if let (true, Some(name)) = (sent, named) {
                    form.fields.push((name, value));
                }
            }
            ("select", Some(_)) => select = named.map(|name| (name, false)),
            // As in every browser: the first entry, unless a later one is selected.
            ("option", Some(form)) => match &mut select {
                Some((name, stands @ false)) => {
                    form.fields.push((name.clone(), value));
                    *stands = true;
                }
                Some((_, true)) if tag.attribute("selected").is_some() => {
                    if let Some(last) = form.fields.last_mut() {
                        last.1 = value;
                    }
                }
                _ => {}
            },
            ("/select", _) => select = None,
            _ => {}
        }
    }
    None
}

fn approves(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    [
        "approve",
        "allow",
        "authorize",
        "authorise",
        "accept",
        "connect",
    ]
    .iter()
    .any(|word| text.starts_with(word))
}

struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Reads a tag, of which `<` was taken, and returns what stands after its `>`.
fn read_tag(text: &str) -> (Tag, &str) {
    let ends = |c: char| c.is_whitespace() || c == '>';
    let (name, mut rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
    let mut tag = Tag {
        name: name.to_ascii_lowercase(),
        attributes: Vec::new(),
    };
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if let Some(after) = rest.strip_prefix('>') {
            return (tag, after);
        }
        if rest.is_empty() {
            return (tag, rest);
        }
        let end = rest.find(|c| ends(c) || c == '=').unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        rest = after.trim_start();
        let mut value = "";
        if let Some(given) = rest.strip_prefix('=') {
            let given = given.trim_start();
            let quote = given.chars().next().filter(|c| matches!(c, '"' | '\''));
            (value, rest) = match quote {
                Some(quote) => given[1..].split_once(quote).unwrap_or((&given[1..], "")),
                None => given.split_at(given.find(ends).unwrap_or(given.len())),
            };
        }
        tag.attributes
            .push((key.to_ascii_lowercase(), unescape(value)));
    }
}

/// Replaces the character references that templates write into attributes.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let known = after.split_once(';').and_then(|(name, tail)| {
            let character = match name {
                "amp" => Some('&'),
                "lt" => Some('<'),
                "gt" => Some('>'),
                "quot" => Some('"'),
                "apos" => Some('\''),
                _ => {
                    let number = name.strip_prefix('#')?;
                    let code = match number.strip_prefix(['x', 'X']) {
                        Some(hex) => u32::from_str_radix(hex, 16),
                        None => number.parse(),
                    };
                    code.ok().and_then(char::from_u32)
                }
            };
            character.map(|character| (character, tail))
        });
        match known {
            Some((character, tail)) => {
                out.push(character);
                rest = tail;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_sent_as_the_approving_button_sends_it() {
        let page = r#"<!DOCTYPE html><form action="/search"><input name=q></form>
            <form method="POST" action="/decide?a=1&amp;b=2">
              <input type="hidden" name="state" value="a&quot;b&#39;c&#x3c;&unknown;">
              <input type=hidden name=scope value='one two' />
              <input type="checkbox" name="news" value="yes">
              <select name="company"><option value="1">One<option value="2">Two</select>
              <select name="size"><option value="s">S</option><option value=m selected>M</select>
              <button type="submit" name="decision" value="deny">Cancel</button>
              <button name="decision" value="approve">Connect</button>
              <button name="decision" value="allow">Again</button>
            </form>"#;
        let fields = [
            ("state", "a\"b'c<&unknown;"),
            ("scope", "one two"),
            ("company", "1"),
            ("size", "m"),
            ("decision", "approve"),
        ];
        let expected = Form {
            action: "/decide?a=1&b=2".to_owned(),
            is_post: true,
            fields: fields
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
        };
        assert_eq!(approving_form(page), Some(expected));
        assert_eq!(approving_form("<form><button>Deny</button></form>"), None);
        assert_eq!(approving_form("<form <input <"), None);
    }

    #[test]
    fn cookies_go_back_to_their_host_and_path_and_can_be_removed() {
        let mut jar = Jar::default();
        let at = |text: &str| Url::parse(text).unwrap();
        let set = |jar: &mut Jar, url: &str, text: &str| {
            let mut headers = HeaderMap::new();
            headers.append(SET_COOKIE, text.parse().unwrap());
            jar.keep(&at(url), &headers);
        };
        set(
            &mut jar,
            "http://localhost:1/connect/x",
            "a=1; Path=/oauth; HttpOnly; SameSite=Lax",
        );
        set(&mut jar, "http://localhost:1/connect/x", "b=2=3; path=/");
        set(&mut jar, "http://localhost:1/connect/x", "c=4");
        let header = |jar: &Jar, url: &str| jar.header(&at(url)).unwrap_or_default();
        assert_eq!(header(&jar, "http://localhost:2/oauth/cb"), "a=1; b=2=3");
        assert_eq!(header(&jar, "http://localhost:1/oauthx"), "b=2=3");
        assert_eq!(header(&jar, "http://localhost:1/connect/y"), "b=2=3; c=4");
        assert_eq!(header(&jar, "http://127.0.0.1:1/oauth"), "");
        set(
            &mut jar,
            "http://localhost:1/other",
            "b=; Path=/; Max-Age=0",
        );
        assert_eq!(header(&jar, "http://localhost:1/oauth"), "a=1");
    }

    #[test]
    fn secrets_in_an_address_are_not_shown() {
        let url =
            Url::parse("http://localhost:8787/connect/abcdefghijklmnopqrstuvwxyz?code=1&state=2");
        assert_eq!(
            shown(&url.unwrap()),
            "http://localhost:8787/connect/abcdef…?code&state"
        );
    }
}
