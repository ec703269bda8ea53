"""YouTube's answers as yt-dlp meets them, cut down to what listing reads; yt-dlp's own code parses them."""

import io
import json
from typing import Any

from yt_dlp import YoutubeDL
from yt_dlp.networking import Request, Response
from yt_dlp.networking.exceptions import HTTPError

Json = dict[str, Any]
PER_PAGE = 3
CHANNEL = "https://www.youtube.com/@someone/videos"
PLAYLIST = "https://www.youtube.com/playlist?list=PLsomething"


def video_id(number: int) -> str:
    return f"vid{number:07d}A"


class RecordedYoutube(YoutubeDL):  # type: ignore[misc]  # yt-dlp is untyped
    """A session whose requests are answered here; `asked` keeps them in order."""

    num_videos = 0
    status = 200

    def __init__(self, options: Json) -> None:
        self.asked: list[str] = []
        super().__init__({**options, "sleep_interval_requests": 0, "extractor_retries": 0})

    def urlopen(self, req: Request | str) -> Response:
        url = req if isinstance(req, str) else req.url
        self.asked.append(url.partition("?")[0])
        body = json.loads(req.data) if isinstance(req, Request) and req.data else {}
        answer = self._answer(url, body)
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        response = Response(io.BytesIO(data), url, {"Content-Type": "text/html; charset=utf-8"}, status=self.status)
        if self.status >= 400:
            raise HTTPError(response)
        return response

    def _answer(self, url: str, body: Json) -> Json | str:
        start = int(body.get("continuation", 0))
        if "/youtubei/v1/search" in url:
            items = [{"itemSectionRenderer": {"contents": self._videos(start)}}, *self._more(start)]
            if start:
                return {"onResponseReceivedCommands": [{"appendContinuationItemsAction": {"continuationItems": items}}]}
            contents = {"sectionListRenderer": {"contents": items}}
            return {"contents": {"twoColumnSearchResultsRenderer": {"primaryContents": contents}}}
        if "/youtubei/v1/browse" in url:
            items = [*self._rich(start), *self._more(start)]
            return {"onResponseReceivedActions": [{"appendContinuationItemsAction": {"continuationItems": items}}]}
        if "/playlist" in url or "/videos" in url:
            return f"<html><script>var ytInitialData = {json.dumps(self._tab())};</script></html>"
        return "<html></html>"

    def _tab(self) -> Json:
        grid = {"richGridRenderer": {"contents": [*self._rich(0), *self._more(0)]}}
        endpoint = {"commandMetadata": {"webCommandMetadata": {"url": "/@someone/videos"}}}
        tab = {"tabRenderer": {"selected": True, "title": "Videos", "content": grid, "endpoint": endpoint}}
        return {
            "contents": {"twoColumnBrowseResultsRenderer": {"tabs": [tab]}},
            "metadata": {"channelMetadataRenderer": {"title": "Someone", "externalId": "UC" + "x" * 22}},
        }

    def _rich(self, start: int) -> list[Json]:
        return [{"richItemRenderer": {"content": video}} for video in self._videos(start)]

    def _videos(self, start: int) -> list[Json]:
        return [
            {
                "videoRenderer": {
                    "videoId": video_id(number),
                    "title": {"runs": [{"text": f"Rain {number}"}]},
                    "lengthText": {"simpleText": "1:30"},
                    "ownerText": {"runs": [{"text": "Someone"}]},
                }
            }
            for number in range(start, min(start + PER_PAGE, self.num_videos))
        ]

    def _more(self, start: int) -> list[Json]:
        if start + PER_PAGE >= self.num_videos:
            return []
        command = {"token": str(start + PER_PAGE), "request": "CONTINUATION_REQUEST_TYPE_BROWSE"}
        endpoint = {"continuationCommand": command}
        return [{"continuationItemRenderer": {"continuationEndpoint": endpoint}}]
