"""The signatures of webhooks that the stand-ins send, judged by each vendor's own library."""

import base64

import pytest
import requests
import stripe
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from hubspot.utils.signature import Signature
from OpenSSL import crypto
from paypalrestsdk.notifications import WebhookEvent
from sendgrid.helpers.eventwebhook import EventWebhook
from square.utils.webhooks_helper import verify_signature

URL = "http://localhost:9/hooks/vendor/tenant"
KEY = "whsec_of-the-stand-in"
BODY = '{"id":"evt_1","object":"event","type":"charge.refunded"}'


@pytest.fixture
def sent(vendor):
    """sent("stripe", body) is what goes along with that body, and the public key."""

    def call(name, body=BODY):
        return vendor(name).control("webhooks", {"url": URL, "key": KEY, "body": body})

    return call


def test_stripe(sent):
    header = sent("stripe")["headers"]["stripe-signature"]
    event = stripe.Webhook.construct_event(BODY, header, KEY)
    assert event.id == "evt_1"
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(BODY + " ", header, KEY)


@pytest.mark.parametrize("name", ["square", "square_loyalty"])
def test_square(sent, name):
    header = sent(name)["headers"]["x-square-hmacsha256-signature"]

    def good(body):
        return verify_signature(
            request_body=body,
            signature_header=header,
            signature_key=KEY,
            notification_url=URL,
        )

    assert good(BODY)
    assert not good(BODY + " ")


def test_hubspot(sent):
    headers = sent("hubspot")["headers"]

    def good(body):
        return Signature.is_valid(
            signature=headers["x-hubspot-signature-v3"],
            client_secret=KEY,
            request_body=body,
            http_uri=URL,
            signature_version="v3",
            timestamp=headers["x-hubspot-request-timestamp"],
        )

    assert good(BODY)
    assert not good(BODY + " ")


def test_sendgrid(sent):
    body = '[{"sg_event_id":"a"}]\r\n'
    answer = sent("sendgrid", body)
    headers = answer["headers"]
    judge = EventWebhook(answer["public_key"])

    def good(text):
        return judge.verify_signature(
            text,
            headers["x-twilio-email-event-webhook-signature"],
            headers["x-twilio-email-event-webhook-timestamp"],
        )

    assert good(body)
    assert not good(body.strip())


def test_paypal(sent):
    """The library's words for what is signed, over the key of the certificate that is shown. The chain
    is not its own: nobody but a stand-in has that root."""
    headers = sent("paypal")["headers"]
    shown = requests.get(headers["paypal-cert-url"], timeout=10)
    certificate = crypto.load_certificate(crypto.FILETYPE_PEM, shown.text)
    assert WebhookEvent._is_common_name_valid(certificate)
    expected = WebhookEvent._get_expected_sig(
        headers["paypal-transmission-id"], headers["paypal-transmission-time"], KEY, BODY
    )
    assert headers["paypal-auth-algo"] == "SHA256withRSA"
    assert _signed(certificate, headers["paypal-transmission-sig"], expected)
    assert not _signed(certificate, headers["paypal-transmission-sig"], expected + "0")


def _signed(certificate, signature: str, message: str) -> bool:
    key = certificate.to_cryptography().public_key()
    try:
        key.verify(base64.b64decode(signature), message.encode(), PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True
