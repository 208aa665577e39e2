"""The stand-ins of the OAuth halves through each vendor's own library, which judges them: what a
library refuses, the stand-in says wrongly."""

import base64
import hashlib
import json

import hubspot
import mailchimp_marketing
import paypalrestsdk
import pytest
import requests
import sendgrid
import simple_salesforce
import square
import stripe
import voucherify
from hubspot.oauth import ApiException
from hubspot.utils.oauth import get_auth_url
from mailchimp_marketing.api_client import ApiClientError
from paypalrestsdk.exceptions import BadRequest, UnauthorizedAccess
from paypalrestsdk.openid_connect import Tokeninfo, authorize_url
from paypalserversdk.configuration import Configuration as PayPalConfiguration
from paypalserversdk.configuration import Environment, Server
from paypalserversdk.exceptions.o_auth_provider_exception import OAuthProviderException
from paypalserversdk.http.auth.o_auth_2 import ClientCredentialsAuthCredentials
from paypalserversdk.paypal_serversdk_client import PaypalServersdkClient
from python_http_client.exceptions import ForbiddenError, UnauthorizedError
from simple_salesforce.login import token_login
from square.core.api_error import ApiError
from xero_python.accounting import AccountingApi
from xero_python.api_client import ApiClient, Configuration
from xero_python.api_client.oauth2 import OAuth2Token, TokenApi
from xero_python.exceptions import HTTPStatusException
from xero_python.identity import IdentityApi

DAY = 24 * 3600
VERIFIER = "a-verifier-of-at-least-forty-three-characters"
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
)


def query(address: str, **fields: str) -> str:
    return requests.Request("GET", address, params=fields).prepare().url


# Xero

XERO_SCOPE = "openid offline_access accounting.settings.read accounting.contacts"


class Xero:
    """The vendor's client, which keeps its token where it is told to."""

    def __init__(self, vendor, monkeypatch, account=None, scope=XERO_SCOPE):
        base = vendor.base
        monkeypatch.setattr(TokenApi, "refresh_token_url", f"{base}/connect/token")
        monkeypatch.setattr(TokenApi, "revoke_token_url", f"{base}/connect/revocation")
        address = query(
            f"{base}/identity/connect/authorize",
            response_type="code",
            client_id=vendor.client_id,
            redirect_uri=vendor.redirect,
            scope=scope,
            state="st",
        )
        form = {
            "grant_type": "authorization_code",
            "code": vendor.code(address, account),
            "redirect_uri": vendor.redirect,
        }
        answer = requests.post(
            f"{base}/connect/token",
            data=form,
            auth=(vendor.client_id, vendor.client_secret),
            timeout=10,
        )
        assert answer.status_code == 200, answer.text
        # Its scope is kept as the list that the library itself keeps after a refresh.
        self.token = answer.json()
        self.token["scope"] = self.token["scope"].split()
        oauth = OAuth2Token(client_id=vendor.client_id, client_secret=vendor.client_secret)
        # Every configuration after the first is a copy of it, whatever it is made with.
        configuration = Configuration()
        configuration.oauth2_token = oauth
        self.client = ApiClient(configuration)
        self.client.oauth2_token_getter(lambda: self.token)
        self.client.oauth2_token_saver(self.keep)
        # The library checks that it knows every field that it is told to keep.
        self.client.set_oauth2_token(self.token)
        self.identity = IdentityApi(self.client, base_url=base)
        self.accounting = AccountingApi(self.client)
        self.accounting.base_url = f"{base}/api.xro/2.0"

    def keep(self, token):
        self.token = token

    def event(self) -> str:
        claims = self.token["access_token"].split(".")[1]
        claims += "=" * (-len(claims) % 4)
        return json.loads(base64.urlsafe_b64decode(claims))["authentication_event_id"]


def test_xero_tenants(vendor, monkeypatch):
    xero = vendor("xero")
    # Those that are always there come first.
    first, second = xero.accounts()[:2]
    one = Xero(xero, monkeypatch, first)
    two = Xero(xero, monkeypatch, second)
    assert {tenant.tenant_id for tenant in one.identity.get_connections()} == {first, second}
    [new] = two.identity.get_connections(auth_event_id=two.event())
    assert (new.tenant_id, new.tenant_type) == (second, "ORGANISATION")
    assert new.created_date_utc == new.updated_date_utc
    organisation = two.accounting.get_organisations(second).organisations[0]
    assert organisation.base_currency.value == "USD"
    two.identity.delete_connection(new.id)
    assert [tenant.tenant_id for tenant in one.identity.get_connections()] == [first]
    with pytest.raises(HTTPStatusException) as refused:
        two.accounting.get_organisations(second)
    assert refused.value.status == 403


def test_xero_refresh_and_grace(vendor, monkeypatch):
    xero = vendor("xero")
    one = Xero(xero, monkeypatch)
    old = one.token["refresh_token"]
    one.client.refresh_oauth2_token()
    assert one.token["refresh_token"] != old
    assert one.token["expires_in"] == 1800
    one.identity.get_connections()

    tokens = TokenApi(one.client, xero.client_id, xero.client_secret)
    scope = XERO_SCOPE.split()
    assert "refresh_token" in tokens.refresh_token(old, scope)
    xero.wait(1800)
    with pytest.raises(Exception, match="invalid_grant"):
        tokens.refresh_token(old, scope)


def test_xero_revocation(vendor, monkeypatch):
    xero = vendor("xero")
    one = Xero(xero, monkeypatch)
    one.client.revoke_oauth2_token()
    with pytest.raises(HTTPStatusException) as refused:
        one.identity.get_connections()
    assert refused.value.status == 401


# Salesforce


def salesforce(vendor, token):
    client = simple_salesforce.Salesforce(
        session_id=token["access_token"], instance_url=token["instance_url"], version="68.0"
    )
    client.base_url = f"{token['instance_url']}/services/data/v68.0/"
    return client


def salesforce_token(vendor, **form):
    """The token answer as the library's own reader of it takes it: session and instance."""
    url = f"{vendor.base}/services/oauth2/token"
    data = {"client_id": vendor.client_id, "client_secret": vendor.client_secret, **form}
    return token_login(url, data, "login", vendor.client_id, {}, {}, requests.Session())


def salesforce_code(vendor) -> dict[str, str]:
    address = query(
        f"{vendor.base}/services/oauth2/authorize",
        response_type="code",
        client_id=vendor.client_id,
        redirect_uri=vendor.redirect,
        scope="api refresh_token",
        state="st",
        code_challenge=CHALLENGE,
        code_challenge_method="S256",
    )
    return {
        "grant_type": "authorization_code",
        "code": vendor.code(address),
        "redirect_uri": vendor.redirect,
        "code_verifier": VERIFIER,
    }


def test_salesforce_code_and_session(vendor):
    standin = vendor("salesforce")
    form = salesforce_code(standin)
    session, instance = salesforce_token(standin, **form)
    assert f"http://{instance}" == standin.base
    token = {"access_token": session, "instance_url": f"http://{instance}"}
    client = salesforce(standin, token)
    assert client.limits()["DailyApiRequests"]["Remaining"] > 0
    with pytest.raises(simple_salesforce.SalesforceAuthenticationFailed) as refused:
        salesforce_token(standin, **form)
    assert refused.value.code == "invalid_grant"
    standin.wait(2 * 3600)
    with pytest.raises(simple_salesforce.SalesforceExpiredSession):
        client.limits()


def test_salesforce_rotation(vendor):
    standin = vendor("salesforce")
    grant = standin.control("grants", {"client_id": standin.client_id})
    again = {"grant_type": "refresh_token", "refresh_token": grant["refresh_token"]}
    session, _ = salesforce_token(standin, **again)
    client = salesforce(standin, {**grant, "access_token": session})
    assert client.limits()
    # An old value that comes back ends the whole grant.
    with pytest.raises(simple_salesforce.SalesforceAuthenticationFailed) as refused:
        salesforce_token(standin, **again)
    assert refused.value.code == "invalid_grant"
    with pytest.raises(simple_salesforce.SalesforceExpiredSession):
        client.limits()


# HubSpot


def hubspot_token(vendor, **form):
    client = hubspot.HubSpot(host=vendor.base)
    return client.oauth.tokens_api.create(
        client_id=vendor.client_id, client_secret=vendor.client_secret, **form
    )


def test_hubspot(vendor):
    standin = vendor("hubspot")
    second = standin.accounts()[1]
    address = get_auth_url(
        standin.client_id, standin.redirect, ("oauth", "crm.objects.contacts.read"), state="st"
    )
    form = {
        "grant_type": "authorization_code",
        "code": standin.code(address, second),
        "redirect_uri": standin.redirect,
    }
    token = hubspot_token(standin, **form)
    assert (token.token_type, token.expires_in) == ("bearer", 1800)
    with pytest.raises(ApiException) as refused:
        hubspot_token(standin, **form)
    assert json.loads(refused.value.body)["status"] == "BAD_AUTH_CODE"

    client = hubspot.HubSpot(access_token=token.access_token, host=standin.base)
    info = client.oauth.access_tokens_api.get(token.access_token)
    assert (str(info.hub_id), info.scopes) == (second, ["oauth", "crm.objects.contacts.read"])
    again = {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
    assert hubspot_token(standin, **again).refresh_token == token.refresh_token
    known = client.oauth.refresh_tokens_api.get(token.refresh_token)
    assert known.client_id == standin.client_id
    details = {"base_url": standin.base, "path": "/account-info/v3/details"}
    assert str(client.api_request(details).json()["portalId"]) == second

    client.oauth.refresh_tokens_api.archive(token.refresh_token)
    with pytest.raises(ApiException) as refused:
        hubspot_token(standin, **again)
    assert json.loads(refused.value.body)["status"] == "BAD_REFRESH_TOKEN"
    # Its access tokens live on.
    assert client.api_request(details).status_code == 200


# Mailchimp


def mailchimp(base, **config):
    client = mailchimp_marketing.Client(config)
    client.api_client.host = f"{base}/3.0"
    client.api_client.server = ""
    return client


def test_mailchimp(vendor):
    standin = vendor("mailchimp")
    address = query(
        f"{standin.base}/oauth2/authorize",
        response_type="code",
        client_id=standin.client_id,
        redirect_uri=standin.redirect,
        state="st",
    )
    form = {
        "grant_type": "authorization_code",
        "client_id": standin.client_id,
        "client_secret": standin.client_secret,
        "redirect_uri": standin.redirect,
        "code": standin.code(address),
    }
    token = requests.post(f"{standin.base}/oauth2/token", data=form, timeout=10).json()
    assert (token["expires_in"], token["scope"]) == (0, None)
    shown = {"Authorization": f"OAuth {token['access_token']}"}
    metadata = requests.get(f"{standin.base}/oauth2/metadata", headers=shown, timeout=10).json()
    assert metadata["api_endpoint"] == standin.base

    client = mailchimp(standin.base, access_token=token["access_token"], server=metadata["dc"])
    assert client.ping.get() == {"health_status": "Everything's Chimpy!"}
    assert client.root.get_root()["account_id"] == metadata["user_id"]
    by_key = mailchimp(standin.base, api_key="0123456789abcdef0123456789abcdef-us6")
    by_key.api_client.server = ""
    assert by_key.ping.get()
    standin.disconnect(metadata["user_id"])
    with pytest.raises(ApiClientError) as refused:
        client.ping.get()
    assert refused.value.status_code == 401


# SendGrid


def test_sendgrid(vendor):
    standin = vendor("sendgrid")
    key = f"SG.{standin.client_id}.x"
    standin.control("keys", {"key": key, "scope": "mail.send user.account.read"})
    client = sendgrid.SendGridAPIClient(key, host=standin.base).client
    assert client.scopes.get().to_dict == {"scopes": ["mail.send", "user.account.read"]}
    assert client.user.account.get().to_dict["type"] == "paid"
    with pytest.raises(ForbiddenError):
        client.user.username.get()
    wrong = sendgrid.SendGridAPIClient("SG.wrong.key", host=standin.base).client
    with pytest.raises(UnauthorizedError) as refused:
        wrong.scopes.get()
    assert "expired, or revoked" in refused.value.to_dict["errors"][0]["message"]


# Stripe


def test_stripe(vendor):
    standin = vendor("stripe")
    second = standin.accounts()[1]
    addresses = {"api": standin.base, "connect": standin.base, "files": standin.base}
    platform = stripe.StripeClient(
        standin.client_secret, client_id=standin.client_id, base_addresses=addresses
    )
    address = platform.oauth.authorize_url(
        {
            "response_type": "code",
            "scope": "read_write",
            "redirect_uri": standin.redirect,
            "state": "st",
        }
    )
    form = {"grant_type": "authorization_code", "code": standin.code(address, second)}
    token = platform.oauth.token(form)
    assert (token.stripe_user_id, token.livemode, token.scope) == (second, False, "read_write")
    less = platform.oauth.token(
        {"grant_type": "refresh_token", "refresh_token": token.refresh_token, "scope": "read_only"}
    )
    assert less.scope == "read_only"

    merchant = stripe.StripeClient(
        token.access_token, base_addresses=addresses, max_network_retries=0
    )
    assert merchant.v1.accounts.retrieve_current().id == second
    assert platform.v1.accounts.retrieve(second).id == second
    done = platform.oauth.deauthorize({"stripe_user_id": second})
    assert done.stripe_user_id == second
    with pytest.raises(stripe.AuthenticationError):
        merchant.v1.accounts.retrieve_current()
    with pytest.raises(stripe.PermissionError):
        platform.v1.accounts.retrieve(second)
    with pytest.raises(stripe.oauth_error.InvalidClientError):
        platform.oauth.deauthorize({"stripe_user_id": second})
    with pytest.raises(stripe.oauth_error.InvalidGrantError):
        platform.oauth.token({"grant_type": "authorization_code", "code": "ac_unknown"})


def test_stripe_ends_the_tokens_of_a_code_that_comes_back(vendor):
    standin = vendor("stripe")
    addresses = {"api": standin.base, "connect": standin.base, "files": standin.base}
    platform = stripe.StripeClient(
        standin.client_secret, client_id=standin.client_id, base_addresses=addresses
    )
    address = platform.oauth.authorize_url({"response_type": "code", "state": "st"})
    form = {"grant_type": "authorization_code", "code": standin.code(address)}
    token = platform.oauth.token(form)
    with pytest.raises(stripe.oauth_error.InvalidGrantError):
        platform.oauth.token(form)
    merchant = stripe.StripeClient(token.access_token, base_addresses=addresses)
    with pytest.raises(stripe.AuthenticationError):
        merchant.v1.accounts.retrieve_current()


# PayPal


def test_paypal_log_in(vendor):
    standin = vendor("paypal")
    second = standin.accounts()[1]
    api = paypalrestsdk.Api(
        mode="sandbox",
        client_id=standin.client_id,
        client_secret=standin.client_secret,
        endpoint=standin.base,
        openid_redirect_uri=standin.redirect,
    )
    scope = "openid profile email https://uri.paypal.com/services/paypalattributes"
    address = authorize_url({"scope": scope, "state": "st"}, api=api)
    token = Tokeninfo.create(standin.code(address, second), api=api)
    assert token.success(), token.error
    assert token.expires_in == 8 * 3600
    kept = token.refresh_token
    token.refresh(api=api)
    assert token.refresh_token == kept
    person = token.userinfo(api=api)
    assert (person.payer_id, person.given_name) == (second, "Olive")
    standin.disconnect(second)
    with pytest.raises(UnauthorizedAccess):
        token.userinfo(api=api)
    with pytest.raises(BadRequest) as refused:
        token.refresh(api=api)
    assert "invalid_grant" in str(refused.value.content)


def paypal(vendor, secret, monkeypatch):
    servers = PayPalConfiguration.environments[Environment.SANDBOX]
    monkeypatch.setitem(servers, Server.DEFAULT, vendor.base)
    credentials = ClientCredentialsAuthCredentials(
        o_auth_client_id=vendor.client_id, o_auth_client_secret=secret
    )
    return PaypalServersdkClient(
        client_credentials_auth_credentials=credentials, environment=Environment.SANDBOX
    )


def test_paypal_own_token(vendor, monkeypatch):
    standin = vendor("paypal")
    client = paypal(standin, standin.client_secret, monkeypatch)
    token = client.auth_managers["Oauth2"].fetch_token()
    assert (token.token_type, token.expires_in) == ("Bearer", 32400)
    with pytest.raises(OAuthProviderException) as refused:
        paypal(standin, "wrong", monkeypatch).auth_managers["Oauth2"].fetch_token()
    assert refused.value.error == "invalid_client"


# Square and Square Loyalty


@pytest.mark.parametrize("name", ["square", "square_loyalty"])
def test_square(vendor, name):
    standin = vendor(name)
    second = standin.accounts()[1]
    scope = "MERCHANT_PROFILE_READ LOYALTY_READ LOYALTY_WRITE"
    address = query(
        f"{standin.base}/oauth2/authorize",
        client_id=standin.client_id,
        scope=scope,
        state="st",
        session="false",
    )
    app = square.Square(token="none", base_url=standin.base)
    keys = {"client_id": standin.client_id, "client_secret": standin.client_secret}
    form = {"grant_type": "authorization_code", "code": standin.code(address, second), **keys}
    token = app.o_auth.obtain_token(**form)
    assert (token.merchant_id, token.token_type) == (second, "bearer")
    assert token.refresh_token_expires_at is None
    with pytest.raises(ApiError) as refused:
        app.o_auth.obtain_token(**form)
    assert (refused.value.status_code, refused.value.errors[0].code) == (401, "UNAUTHORIZED")

    again = app.o_auth.obtain_token(
        grant_type="refresh_token", refresh_token=token.refresh_token, short_lived=True, **keys
    )
    assert again.refresh_token == token.refresh_token
    assert again.short_lived
    seller = square.Square(token=again.access_token, base_url=standin.base)
    status = seller.o_auth.retrieve_token_status()
    assert (status.client_id, status.scopes) == (standin.client_id, scope.split())
    assert seller.merchants.get(merchant_id="me").merchant.id == second
    assert seller.locations.list().locations[0].merchant_id == second

    proof = {"additional_headers": {"Authorization": f"Client {standin.client_secret}"}}
    done = app.o_auth.revoke_token(
        client_id=standin.client_id, merchant_id=second, request_options=proof
    )
    assert done.success
    with pytest.raises(ApiError) as refused:
        seller.merchants.get(merchant_id="me")
    assert refused.value.errors[0].code == "ACCESS_TOKEN_REVOKED"


def test_square_without_a_secret(vendor):
    standin = vendor("square")
    address = query(
        f"{standin.base}/oauth2/authorize",
        client_id=standin.client_id,
        scope="MERCHANT_PROFILE_READ",
        state="st",
        code_challenge=CHALLENGE,
    )
    app = square.Square(token="none", base_url=standin.base)
    token = app.o_auth.obtain_token(
        client_id=standin.client_id,
        grant_type="authorization_code",
        code=standin.code(address),
        code_verifier=VERIFIER,
    )
    assert token.refresh_token_expires_at
    form = {"client_id": standin.client_id, "grant_type": "refresh_token"}
    again = app.o_auth.obtain_token(refresh_token=token.refresh_token, **form)
    assert again.refresh_token != token.refresh_token
    with pytest.raises(ApiError):
        app.o_auth.obtain_token(refresh_token=token.refresh_token, **form)


# Voucherify


def test_voucherify(vendor):
    standin = vendor("voucherify")

    def customers(token):
        keys = {"X-App-Id": standin.client_id, "X-App-Token": token}
        config = voucherify.Configuration(host=standin.base, api_key=keys)
        client = voucherify.ApiClient(config)
        return voucherify.CustomersApi(client).list_customers(limit=1)

    standin.control("keys", {"key": f"{standin.client_id}:token"})
    assert customers("token").total == 0
    with pytest.raises(voucherify.exceptions.UnauthorizedException) as refused:
        customers("wrong")
    assert json.loads(refused.value.body)["key"] == "unauthorized"


# Faults, which clients have to survive


def test_a_lost_answer_costs_a_rotated_token(vendor, monkeypatch):
    xero = vendor("xero")
    one = Xero(xero, monkeypatch)
    tokens = TokenApi(one.client, xero.client_id, xero.client_secret)
    rule = {"kind": "reset_after_effect", "match": {"path_contains": "/connect/token"}}
    xero.control("faults", rule)
    with pytest.raises(Exception, match="Connection"):
        tokens.refresh_token(one.token["refresh_token"], [])
    # The grace of this vendor is made for exactly that.
    assert tokens.refresh_token(one.token["refresh_token"], [])["refresh_token"]
    counted = xero.control("requests")["paths"]["POST /connect/token"]
    assert counted["reset"] >= 1
