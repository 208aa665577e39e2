"""Starts the emulator of AWS, with one thing mended: how many messages a function gets at a time.

AWS collects up to BatchSize messages for up to MaximumBatchingWindowInSeconds
(https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-parameters.html). The emulator takes ten at
most, and never waits.
"""

import sys
import threading
import time

from ministack import app
from ministack.services import lambda_svc, sqs

# Most messages of one ReceiveMessage.
RECEIVED_MAX = 10
# An invocation carries 6 MB: another receipt, of ten messages of 256 KiB each, must still fit.
BYTES_MAX = 6_000_000 - RECEIVED_MAX * 262_144

receive_ten = sqs._receive_messages_for_esm
wakers: dict[str, threading.Timer] = {}


def window(queue_url: str) -> float:
    """For how many seconds messages of this queue are collected."""
    name = queue_url.rstrip("/").rsplit("/", 1)[-1]
    windows = [
        source.get("MaximumBatchingWindowInSeconds") or 0
        for _, _, source in lambda_svc._iter_all_esms()
        if source.get("EventSourceArn", "").rsplit(":", 1)[-1] == name
    ]
    return max(windows, default=0)


def left_to_wait(queue_url: str, most: int, seconds: float) -> float:
    """For how many seconds the messages that are there still wait for others."""
    now = time.time()
    with sqs._queues_lock:
        messages = sqs._get_q(queue_url)["messages"]
        for message in messages:
            sqs._ensure_msg_fields(message)
        visible = [one["visible_at"] for one in messages if one["visible_at"] <= now]
    if not visible or len(visible) >= most:
        return 0
    return min(visible) + seconds - now


def receive(queue_url: str, most: int) -> list[dict]:
    seconds = window(queue_url)
    if not seconds:
        return receive_ten(queue_url, most)
    wait = left_to_wait(queue_url, most, seconds)
    if wait > 0:
        waker = wakers.get(queue_url)
        if waker is None or not waker.is_alive():
            waker = threading.Timer(wait, lambda_svc._esm_wake.set)
            waker.daemon = True
            waker.start()
            wakers[queue_url] = waker
        return []
    batch: list[dict] = []
    size = 0
    while len(batch) < most and size <= BYTES_MAX:
        more = receive_ten(queue_url, min(most - len(batch), RECEIVED_MAX))
        if not more:
            break
        batch += more
        size += sum(len(message["body"]) for message in more)
    return batch


sqs._receive_messages_for_esm = receive

if __name__ == "__main__":
    sys.exit(app.main())
