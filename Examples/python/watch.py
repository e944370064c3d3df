#!/usr/bin/env python3
"""A Tiny SNS client in Python: logs in, follows, posts, and watches a timeline over the death of any server.

Written from PROTOCOL.md alone; needs pyzmq and protobuf (Debian: python3-zmq python3-protobuf). The messages come from
tinysns.desc beside this file, which `scripts/generate-protobuf.sh` makes of Protos/tinysns.proto: unlike generated Python
code, it works with every version of protobuf.

    TINYSNS_PASSWORD="correct horse" python3 watch.py alice --follow bob carol --post "hello"

What goes over the network is encrypted (CURVE): the cluster proves that it has the key that `keys/cluster.pub` in its state
folder, or --server-key, tells.

`Client` has no thread of its own: it works while one of its methods is called. Leave it alone for more than ten seconds
and the master closes the session; the next call opens another one, and nothing is lost.
"""

import argparse
import getpass
import json
import os
import random
import secrets
import signal
import sys
import time
from collections import deque
from datetime import datetime, timezone
from pathlib import Path

import zmq
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def load_messages(path):
    """The message classes of a descriptor set, by name: `messages["Request"]`."""
    pool = descriptor_pool.DescriptorPool()
    messages = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
        for name in (message.name for message in file.message_type):
            descriptor = pool.FindMessageTypeByName(f"{file.package}.{name}")
            if hasattr(message_factory, "GetMessageClass"):
                messages[name] = message_factory.GetMessageClass(descriptor)
            else:  # protobuf before 4.22
                messages[name] = message_factory.MessageFactory(pool).GetPrototype(descriptor)
    return messages


MESSAGES = load_messages(Path(__file__).with_name("tinysns.desc"))
Request, Reply, RouterRequest, RouterReply, TimelinePage = (
    MESSAGES[name] for name in ("Request", "Reply", "RouterRequest", "RouterReply", "TimelinePage"))

VERSION = 2
REQUEST_BYTES = 4096  # libzmq closes the connection of whoever sends more
# Refusal codes that the client itself acts on.
INVALID, INVALID_TEXT, NO_SESSION, LIMIT, BAD_VERSION, UNAVAILABLE, CREDENTIALS = 1, 5, 6, 7, 10, 11, 12
# Refusals of a Hello that no other master would answer otherwise.
FINAL = {INVALID, INVALID_TEXT, BAD_VERSION, CREDENTIALS}

# Seconds.
LOCATE_TIMEOUT = 0.25  # for an answer of the router, before it is asked again: it may have been started anew
SUSPECT_TIMEOUT = 0.75  # for its answer about a suspect, which it asks first
HELLO_TIMEOUT = 0.5  # for the answer to a Hello with a token
PASSWORD_TIMEOUT = 2.0  # with a password, which is slow to check on purpose
REQUEST_TIMEOUT = 2.0  # for the answer to a request, before the master is suspected
PING_BUSY = 0.2  # silence with requests under way, before a Ping
PING_EVERY = 1.0  # from one Ping to the next, whatever is heard: only a Pong finds a lost tail, and only what is said keeps the session
PONG_TIMEOUT = 0.3  # for the answer to a Ping, before the master is suspected
TAIL_PATIENCE = 0.15  # for an update to overtake the Pong that tells of it

DISCONNECTS = (zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
               | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH)


class Refused(Exception):
    """The service refused a request. `code` is one of PROTOCOL.md's; nothing happened."""

    def __init__(self, refusal):
        super().__init__(refusal.message)
        self.code = refusal.code


class TimedOut(Exception):
    """No answer by the deadline. A request that was sent may still have taken effect."""


class WatchedTimeline:
    """One watched timeline: turns numbered updates, markers and pages into posts without gap or repeat.

    Two numbers do it: `cursor`, the log position up to which everything has been shown, and `next`, the number of the next
    update on the topic. Each method returns the posts to show now, and whether to read the timeline after the cursor.
    """

    HELD_BACK_MAX = 4096

    def __init__(self, cursor):
        self.cursor = cursor
        self.reset()

    def reset(self):
        """There is no master, or no topic there yet. The cursor stays: it is a position in the log, the same everywhere."""
        self.state = "unsubscribed"  # then subscribing, repairing, live
        self.topic = None
        self.next = 0
        self.held_back = []  # updates that came while a page is being read
        self.again = False  # another gap appeared meanwhile
        self.tail = None  # a Pong was ahead: (number, until when to wait for the update itself)

    def on_watching(self, topic, sequence):
        self.reset()
        self.state, self.topic, self.next = "subscribing", topic, sequence

    def on_update(self, sequence, post):
        """An update, or with `post` None a marker, which tells the number of the update to come."""
        if self.state == "subscribing":
            # The first word: from here on updates come. What was before it is in the log.
            self.restart_at(sequence, post)
            return self.repair()
        if self.state == "repairing":
            if sequence > self.next or len(self.held_back) >= self.HELD_BACK_MAX:
                self.restart_at(sequence, post)
                self.again = True
            elif sequence == self.next and post is not None:
                self.next += 1
                self.held_back.append(post)
        elif self.state == "live":
            if sequence > self.next:
                self.restart_at(sequence, post)
                return self.repair()
            if sequence == self.next and post is not None:
                self.next += 1
                self.check_tail()
                return self.fresh([post]), False
        return [], False

    def on_page(self, page):
        """The page asked for."""
        if self.state != "repairing":
            return [], False
        shown = self.fresh(page.posts)
        self.cursor = max(self.cursor, page.up_to)
        if page.more or self.again:
            self.again = False
            return shown, True
        shown += self.fresh(self.held_back)
        self.state, self.held_back = "live", []
        self.check_tail()
        return shown, False

    def on_position(self, sequence, now):
        """A Pong tells the number of the topic's next update."""
        if self.tail is None and (self.state == "subscribing" or self.state == "live" and sequence > self.next):
            self.tail = (sequence, now + TAIL_PATIENCE)

    def on_timer(self, now):
        """Looks whether what a Pong told of has come."""
        if self.tail is None or now < self.tail[1]:
            return [], False
        sequence, _ = self.tail
        self.tail = None
        if self.state == "subscribing" or self.state == "live" and sequence > self.next:
            self.next, self.held_back = sequence, []
            return self.repair()
        return [], False

    def repair(self):
        self.state, self.again, self.tail = "repairing", False, None
        return [], True

    def restart_at(self, sequence, post):
        self.next = sequence if post is None else sequence + 1
        self.held_back = [] if post is None else [post]

    def fresh(self, posts):
        shown = []
        for post in posts:
            if post.id > self.cursor:
                self.cursor = post.id
                shown.append(post)
        return shown

    def check_tail(self):
        if self.tail is not None and self.tail[0] <= self.next:
            self.tail = None


class Pending:
    """A request without an answer yet."""

    def __init__(self, fill, is_own):
        self.fill = fill  # writes the body into a Request
        self.is_own = is_own  # asked by the program, so repeated at the next master; else by a watched timeline
        self.sent_at = None
        self.again_at = None  # when to send it again to a master that had no room for it
        self.refused = 0  # how often it had none
        self.answer = None


class Client:
    """A session of one user. `on_note` is told in words when a master is lost and another one serves.

    `server_key` is a function that tells the cluster's public key, asked anew whenever a master is looked for (for a cluster on
    this machine may get new keys); or None: nothing is encrypted.
    """

    def __init__(self, router, user, server_key, password, register=True, on_note=lambda text: None):
        self.router, self.user, self.register, self.on_note = router, user, register, on_note
        self.password = password
        self.token = b""  # what the first login gave: later ones, over any failover, do without the password
        self.context = zmq.Context.instance()
        self.server_key, self.proved_key = server_key, None
        # One pair for all connections: a master lets a subscription count only if it has the key of the session that watches.
        self.keys = zmq.curve_keypair() if server_key is not None else None
        # Names this client for good: with a request's number it names the request, whichever master it is sent to.
        self.client_id = secrets.randbits(64)
        self.last_number = 0
        self.last_locate = 0
        self.newest = 0  # the newest event known: no master may answer older state
        self.pending = {}  # by number
        self.timeline = None  # the watched home timeline, if any
        self.shown = deque()  # its posts that the program has not taken
        self.retry_at = None  # when to ask again what was refused for now
        # The present master.
        self.master = None
        self.is_open = False  # it has said Welcome
        self.requests = self.updates = self.monitor = None
        self.last_heard = 0.0
        self.last_ping = 0.0
        self.ping_sent_at = None  # of one that has not been answered
        # The master that failed.
        self.suspect = None
        self.failures = 0
        self.lost_at = None
        self.attempt = 0  # how often in a row no master was found
        self.retry_after = 0.0  # what the last refusal asked for

    # ------------------------------------------------------------ for the program

    def post(self, text, timeout=30.0):
        """Posts a text. Returns the post's id once it is on disk."""
        return self.effect(timeout, post=text)

    def follow(self, name, timeout=30.0):
        return self.effect(timeout, follow=name)

    def unfollow(self, name, timeout=30.0):
        return self.effect(timeout, unfollow=name)

    def newest_posts(self, limit=20, timeout=30.0):
        """The newest posts of the home timeline, oldest first, and the log position from which to go on."""
        def fill(request):
            request.timeline.timeline.home.SetInParent()
            request.timeline.newest.SetInParent()
            request.timeline.limit = limit
        page = self.ask(fill, timeout).page
        return list(page.posts), page.up_to

    def watch(self, after):
        """Begins to watch the home timeline: everything after this log position, then what comes."""
        self.timeline = WatchedTimeline(after)
        self.newest = max(self.newest, after)
        if self.master is not None:
            self.ask_to_watch()

    def next_posts(self, timeout):
        """The next posts of the watched timeline, in order; empty if none come in time."""
        deadline = time.monotonic() + timeout
        while not self.shown and time.monotonic() < deadline:
            self.turn(deadline)
        posts = list(self.shown)
        self.shown.clear()
        return posts

    def close(self):
        if self.master is not None:
            self.send(self.new_number(), lambda request: request.bye.SetInParent())
        self.disconnect()

    # ------------------------------------------------------------ requests

    def effect(self, timeout, **body):
        def fill(request):
            for field, value in body.items():
                setattr(request, field, value)
        return self.ask(fill, timeout).done

    def ask(self, fill, timeout):
        """Sends a request, repeats it under the same number at every next master, and returns the answer."""
        probe = Request(number=2**62)
        fill(probe)
        if probe.ByteSize() > REQUEST_BYTES:  # would end every connection that it is repeated on
            raise ValueError(f"the request is longer than {REQUEST_BYTES} bytes")
        deadline = time.monotonic() + timeout
        number = self.submit(fill, is_own=True)
        pending = self.pending[number]
        try:
            while pending.answer is None:
                if time.monotonic() >= deadline:
                    raise TimedOut("no master is available" if self.master is None else "no answer in time")
                self.turn(deadline)
        finally:
            self.pending.pop(number, None)
        if pending.answer.WhichOneof("body") == "refused":
            raise Refused(pending.answer.refused)
        return pending.answer

    def new_number(self):
        self.last_number += 1
        return self.last_number

    def submit(self, fill, is_own):
        number = self.new_number()
        self.pending[number] = Pending(fill, is_own)
        if self.master is not None:
            self.send(number, fill)
        return number

    def send(self, number, fill):
        request = Request(number=number)
        fill(request)
        if number in self.pending:
            self.pending[number].sent_at, self.pending[number].again_at = time.monotonic(), None
        self.requests.send(request.SerializeToString(), zmq.NOBLOCK)

    # ------------------------------------------------------------ one turn: receive, then look at the clock

    def turn(self, deadline):
        if self.master is None:
            self.find_master(deadline)
            return
        wait = min(deadline, self.next_timer()) - time.monotonic()
        poller = zmq.Poller()
        for socket in (self.requests, self.updates, self.monitor):
            poller.register(socket, zmq.POLLIN)
        ready = dict(poller.poll(max(0, wait * 1000)))
        for socket, handle in ((self.requests, self.on_reply), (self.updates, self.on_update), (self.monitor, self.on_event)):
            for _ in range(1000):  # then the others have their turn
                if self.master is None or socket not in ready:
                    break
                try:
                    handle(socket.recv_multipart(zmq.NOBLOCK))
                except zmq.Again:
                    break
        if self.master is not None:
            self.on_timers(time.monotonic())

    def oldest_sent(self):
        return min((pending.sent_at for pending in self.pending.values() if pending.sent_at is not None), default=None)

    def ping_due(self):
        due = self.last_ping + PING_EVERY
        return min(due, self.last_heard + PING_BUSY) if self.pending else due

    def next_timer(self):
        times = [self.ping_due() if self.ping_sent_at is None else self.ping_sent_at + PONG_TIMEOUT]
        oldest = self.oldest_sent()
        if oldest is not None:
            times.append(oldest + REQUEST_TIMEOUT)
        if self.timeline is not None and self.timeline.tail is not None:
            times.append(self.timeline.tail[1])
        if self.retry_at is not None:
            times.append(self.retry_at)
        times += [pending.again_at for pending in self.pending.values() if pending.again_at is not None]
        return min(times)

    def on_timers(self, now):
        oldest = self.oldest_sent()
        if self.ping_sent_at is None:
            if now >= self.ping_due():
                self.last_ping = self.ping_sent_at = now
                self.send(self.new_number(), lambda request: request.ping.SetInParent())
        elif now >= self.ping_sent_at + PONG_TIMEOUT:
            return self.lose("no answer", is_suspect=True)
        if oldest is not None and now >= oldest + REQUEST_TIMEOUT:
            return self.lose("no answer", is_suspect=True)
        for number, pending in sorted(self.pending.items()):
            if pending.again_at is not None and now >= pending.again_at:
                self.send(number, pending.fill)
        if self.retry_at is not None and now >= self.retry_at:
            self.retry_at = None
            if self.timeline.state == "unsubscribed":
                self.ask_to_watch()
            else:
                self.ask_for_page()
        if self.timeline is not None:
            self.show(self.timeline.on_timer(now))

    # ------------------------------------------------------------ finding a master

    def find_master(self, deadline):
        """Asks the router, connects, says Hello; or waits a little, and returns without a master."""
        self.attempt += 1
        self.retry_after = 0.0
        found = self.locate(deadline)
        if found is not None and self.greet(*found):
            self.attempt = 0
            return
        # With a growing, jittered pause: a whole cluster's clients may be asking at once.
        ceiling = min(2.0, 0.02 * 2 ** min(self.attempt, 10))
        pause = max(self.retry_after, random.uniform(ceiling / 2, ceiling))
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))

    def locate(self, deadline):
        """Where a master is that is alive now, as (master, requests, timelines); None if the router knows none."""
        self.last_locate += 1
        request = RouterRequest()
        request.locate.number, request.locate.user = self.last_locate, self.user
        if self.suspect is not None:
            request.locate.suspect.CopyFrom(self.suspect)
            request.locate.failures = self.failures
        if self.server_key is not None:
            self.proved_key = self.server_key()
            if self.proved_key is None:
                return None  # the cluster has not been started yet
        with self.connect(zmq.DEALER, self.router) as socket:
            ask_at = time.monotonic()
            deadline = min(deadline, ask_at + (LOCATE_TIMEOUT if self.suspect is None else SUSPECT_TIMEOUT))
            while (now := time.monotonic()) < deadline:
                if now >= ask_at:
                    if self.server_key is not None and self.server_key() != self.proved_key:
                        return None  # another one has to be proved now: on a new socket
                    # Asked again under the same number, the question keeps its place at the router.
                    socket.send(request.SerializeToString())
                    ask_at = now + LOCATE_TIMEOUT
                if not socket.poll(max(0, min(ask_at, deadline) - now) * 1000):
                    continue
                reply = RouterReply.FromString(socket.recv())
                kind = reply.WhichOneof("body")
                if kind == "located" and reply.located.number == self.last_locate:
                    return reply.located.master, reply.located.requests, reply.located.timelines
                if kind == "unavailable" and reply.unavailable.number == self.last_locate:
                    self.retry_after = reply.unavailable.retry_after_ms / 1000
                    return None
        return None

    def connect(self, kind, endpoint, **options):
        socket = self.context.socket(kind)
        socket.linger = 0
        self.encrypt(socket)
        socket.ipv6 = "[" in endpoint
        for name, value in options.items():
            setattr(socket, name, value)
        socket.connect(endpoint)
        return socket

    def encrypt(self, socket):
        """Makes a socket, before it is connected, one that talks to the cluster alone."""
        if self.keys is not None:
            socket.curve_serverkey = self.proved_key
            socket.curve_publickey, socket.curve_secretkey = self.keys

    def greet(self, master, requests, timelines):
        """Opens a session at a master, and sends what is unanswered."""
        self.requests = self.context.socket(zmq.DEALER)
        self.monitor = self.requests.get_monitor_socket(DISCONNECTS)
        self.requests.linger, self.requests.ipv6 = 100, "[" in requests
        self.encrypt(self.requests)
        self.requests.connect(requests)
        # Subscriptions leave through SUB's send queue: at a high-water mark they would be lost without a word.
        self.updates = self.connect(zmq.SUB, timelines, sndhwm=0, rcvhwm=4096)
        number = self.new_number()

        def fill(request):
            hello = request.hello
            hello.version, hello.client, hello.user = VERSION, self.client_id, self.user
            hello.register, hello.newest = self.register, self.newest
            if self.token:
                hello.token = self.token
            else:
                hello.password = self.password
        self.master = master
        self.send(number, fill)
        deadline = time.monotonic() + (HELLO_TIMEOUT if self.token else PASSWORD_TIMEOUT)
        poller = zmq.Poller()
        poller.register(self.requests, zmq.POLLIN)
        poller.register(self.monitor, zmq.POLLIN)
        while True:
            ready = dict(poller.poll(max(0, (deadline - time.monotonic()) * 1000)))
            if self.requests in ready:
                reply = Reply.FromString(self.requests.recv())
                kind = reply.WhichOneof("body")
                if kind == "welcome" and reply.number == number:
                    break
                if kind == "refused" and reply.number == number:
                    self.retry_after = reply.refused.retry_after_ms / 1000
                    self.lose("it does not serve", is_suspect=False)
                    if reply.refused.code == CREDENTIALS and self.token:
                        self.token = b""  # expired, or revoked: once more with the password
                        return False
                    if reply.refused.code in FINAL:
                        raise Refused(reply.refused)
                    return False
                if kind == "goodbye":
                    self.lose("goodbye", is_suspect=False)
                    return False
            else:
                cause = "connection lost" if self.monitor in ready else "no answer"
                self.lose(cause, is_suspect=True)
                return False
        now = time.monotonic()
        self.newest = max(self.newest, reply.welcome.head)
        self.token = reply.welcome.token or self.token
        self.register = False  # once is enough; later an unknown name would be an error
        self.is_open = True
        self.last_heard, self.last_ping, self.ping_sent_at = now, now, None
        self.suspect, self.failures = None, 0
        if self.lost_at is not None:
            self.on_note(f"{master.name} serves now, after {(now - self.lost_at) * 1000:.0f} ms")
            self.lost_at = None
        for number in sorted(self.pending):
            self.send(number, self.pending[number].fill)
        if self.timeline is not None:
            self.ask_to_watch()
        return True

    def lose(self, cause, is_suspect):
        """Gives the master up. The router checks a suspect for itself."""
        if is_suspect:
            self.failures = self.failures + 1 if self.suspect == self.master else 1
            self.suspect = self.master
        else:
            self.suspect, self.failures = None, 0
        if self.is_open:
            self.lost_at = time.monotonic()
            self.on_note(f"lost {self.master.name}: {cause}")
        self.disconnect()

    def disconnect(self):
        if self.requests is not None:
            self.requests.disable_monitor()
            for socket in (self.requests, self.updates, self.monitor):
                socket.close()
        self.master = self.requests = self.updates = self.monitor = None
        self.is_open = False
        # What the watched timeline had asked is asked anew; the program's own requests are repeated.
        self.pending = {number: pending for number, pending in self.pending.items() if pending.is_own}
        for pending in self.pending.values():
            pending.sent_at = pending.again_at = None
        self.retry_at = None
        if self.timeline is not None:
            self.timeline.reset()

    def on_event(self, frames):
        """The connection to the master is gone. ZeroMQ would make a new one by itself, but the session went with the old one."""
        if int.from_bytes(frames[0][:2], sys.byteorder) & DISCONNECTS:
            self.lose("connection lost", is_suspect=True)

    # ------------------------------------------------------------ what the master says

    def heard(self):
        self.last_heard, self.ping_sent_at = time.monotonic(), None

    def on_reply(self, frames):
        self.heard()
        reply = Reply.FromString(frames[-1])
        kind = reply.WhichOneof("body")
        if kind == "goodbye":
            return self.lose("goodbye", is_suspect=False)
        if kind == "refused" and reply.refused.code in (NO_SESSION, UNAVAILABLE):
            return self.lose("it does not serve", is_suspect=False)
        if kind == "pong":
            for position in reply.pong.topics:
                if self.timeline is not None and position.topic == self.timeline.topic:
                    self.timeline.on_position(position.sequence, time.monotonic())
            return None
        pending = self.pending.get(reply.number)
        if pending is None or pending.answer is not None:
            return None  # answered before, or given up
        pending.sent_at = None
        if kind == "refused" and reply.refused.code == LIMIT and reply.refused.retry_after_ms > 0 and pending.is_own:
            # Nothing happened; there is no room now. The same again, after a growing pause.
            pause = max(reply.refused.retry_after_ms / 1000, min(2.0, 0.01 * 2 ** pending.refused))
            pending.again_at = time.monotonic() + pause * random.uniform(1.0, 1.5)
            pending.refused += 1
            return None
        pending.answer = reply
        if kind == "done":
            self.newest = max(self.newest, reply.done)
        if kind == "page":
            self.newest = max(self.newest, reply.page.up_to)
        if not pending.is_own:
            del self.pending[reply.number]
            self.on_timeline_reply(kind, reply)
        return None

    # ------------------------------------------------------------ the watched timeline

    def ask_to_watch(self):
        self.submit(lambda request: request.watch.home.SetInParent(), is_own=False)

    def ask_for_page(self):
        cursor = self.timeline.cursor

        def fill(request):
            request.timeline.timeline.home.SetInParent()
            request.timeline.after = cursor
        self.submit(fill, is_own=False)

    def on_timeline_reply(self, kind, reply):
        if kind == "watching":
            self.timeline.on_watching(reply.watching.topic, reply.watching.sequence)
            self.updates.subscribe(reply.watching.topic)
        elif kind == "page":
            self.show(self.timeline.on_page(reply.page))
        elif kind == "refused":
            if reply.refused.retry_after_ms == 0:
                raise Refused(reply.refused)
            self.retry_at = time.monotonic() + reply.refused.retry_after_ms / 1000

    def on_update(self, frames):
        self.heard()
        if len(frames) != 2 or len(frames[0]) != 24:
            return
        header, body = frames
        first = int.from_bytes(header[16:24], "big")
        for place, post in enumerate(TimelinePage.FromString(body).posts or [None]):
            # Showing may end the watch, or begin another.
            if self.timeline is None or header[:16] != self.timeline.topic:
                return
            self.show(self.timeline.on_update(first + place, post))

    def show(self, orders):
        posts, is_to_read = orders
        if posts:
            self.newest = max(self.newest, posts[-1].id)
            self.shown.extend(posts)
        if is_to_read:
            self.ask_for_page()


# ---------------------------------------------------------------- the command


def show(post, as_json):
    moment = datetime.fromtimestamp(post.time_ms / 1000, timezone.utc)
    if as_json:
        created_at = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{post.time_ms % 1000:03}Z"
        line = json.dumps(
            {"author": post.author, "created_at": created_at, "id": post.id, "text": post.text},
            ensure_ascii=False, separators=(",", ":"))
    else:
        line = f"{moment.astimezone():%H:%M:%S}  {post.author}: {post.text}"
    print(line, flush=True)


def find_password(user, path):
    """From a file's first line, from TINYSNS_PASSWORD, or from whoever sits at the terminal."""
    if path is not None:
        return Path(path).read_text(encoding="utf-8").split("\n")[0].rstrip("\r")
    if os.environ.get("TINYSNS_PASSWORD"):
        return os.environ["TINYSNS_PASSWORD"]
    if sys.stdin.isatty():
        return getpass.getpass(f"Password of {user}: ")
    sys.exit("watch.py: give the password with --password-file FILE or TINYSNS_PASSWORD")


CLUSTER_KEY = Path(__file__).resolve().parents[2] / "var/keys/cluster.pub"


def key_reader(options):
    """The function that tells the cluster's public key, from the command line's options."""
    if options.plain:
        return None
    if options.server_key is not None:
        key = options.server_key.encode()
        if len(key) != 40:
            sys.exit("watch.py: --server-key has 40 characters")
        return lambda: key

    def read():
        try:
            return options.server_key_file.read_bytes().strip()
        except OSError:
            return None
    return read


def main():
    parser = argparse.ArgumentParser(description="Logs in (a new name is registered), follows, posts, and watches the timeline.")
    parser.add_argument("user")
    parser.add_argument("--follow", metavar="NAME", nargs="+", action="extend", default=[], help="follow these users first")
    parser.add_argument("--post", metavar="TEXT", nargs="+", action="extend", default=[], help="then post these texts")
    parser.add_argument("--json", action="store_true", help="print a JSON object a post, one a line")
    parser.add_argument("--router", metavar="ENDPOINT", default="tcp://127.0.0.1:3010", help="default: %(default)s")
    parser.add_argument("--server-key", metavar="Z85", help="the cluster's public key, as `tinysns keys` prints it")
    parser.add_argument("--server-key-file", metavar="FILE", type=Path, default=CLUSTER_KEY,
                        help="a file that has it, read whenever a master is looked for; default: %(default)s")
    parser.add_argument("--plain", action="store_true", help="no encryption: for a cluster with `security: none`")
    parser.add_argument("--seconds", metavar="N", type=float, default=float("inf"), help="watch for so long; default: for ever")
    parser.add_argument("--password-file", metavar="FILE", help="a file whose first line is the password; else TINYSNS_PASSWORD")
    options = parser.parse_args()

    # Not sys.exit: the context would be terminated, and wait for sockets that nobody closes. Every line is flushed as it is printed.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    def note(text):
        print(text, file=sys.stderr, flush=True)
    try:
        password = find_password(options.user, options.password_file)
    except (OSError, UnicodeDecodeError, KeyboardInterrupt) as error:
        sys.exit(f"watch.py: {error or 'no password was given'}")
    client = Client(options.router, options.user, key_reader(options), password, on_note=note)
    try:
        for name in options.follow:
            try:
                client.follow(name)
            except Refused as refusal:
                note(str(refusal))
        posts, up_to = client.newest_posts()
        client.watch(up_to)
        for post in posts:
            show(post, options.json)
        for text in options.post:
            note(f"posted as {client.post(text)}")
        end = time.monotonic() + options.seconds
        while (left := end - time.monotonic()) > 0:
            for post in client.next_posts(min(left, 3600.0)):
                show(post, options.json)
    except (Refused, ValueError) as error:
        sys.exit(f"watch.py: {error}")
    except TimedOut as timeout:
        note(f"watch.py: {timeout}")
        sys.exit(69)
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        client.close()


if __name__ == "__main__":
    main()
