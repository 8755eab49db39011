"""No model: an ASGI application that reads a body, parses it as JSON and answers a constant of the same size.

Under uvicorn with uvloop and httptools: what a Python server over ASGI can reach at most.
"""

import orjson

ANSWER = orjson.dumps({"predictions": [{"label": "Ankle boot", "probabilities": [0.012345678] * 10}]})
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if body:
        orjson.loads(body)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})
