"""The demo's service: counts its visitors, in memory and in a file."""
import hashlib
import http.server
import json
import os
import threading
import time

held = os.urandom(64 << 20)  # 64 MiB of memory that nobody could make up again
count = 0
stood_still = 0.0  # the longest time, in seconds, that this program did not run


def watch_the_clock():
    global stood_still
    last = time.monotonic()
    while True:
        time.sleep(0.002)
        now = time.monotonic()
        stood_still, last = max(stood_still, now - last), now


class Counter(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global count, stood_still
        count += 1
        with open("/var/visits", "a") as visits:
            visits.write(f"visit {count}\n")
        answer = {
            "count": count,
            "visits in /var/visits": len(open("/var/visits").readlines()),
            "memory": f"{len(held) >> 20} MiB, sha256 {hashlib.sha256(held).hexdigest()[:12]}",
            "GREETING": os.environ.get("GREETING"),
            "stood still (ms)": round(stood_still * 1000),
        }
        stood_still = 0.0
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode() + b"\n")

    def log_message(self, *_):
        pass


threading.Thread(target=watch_the_clock, daemon=True).start()
http.server.HTTPServer(("127.0.0.1", 8000), Counter).serve_forever()
