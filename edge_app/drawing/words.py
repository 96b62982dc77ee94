"""What labels and reasons are called in the picture, by language. Names that are not listed are drawn as they are."""

from __future__ import annotations

KOREAN = {
    "angry": "화남",
    "disgust": "혐오",
    "fear": "두려움",
    "happy": "행복",
    "neutral": "무표정",
    "sad": "슬픔",
    "surprise": "놀람",
    "calm": "차분함",
    "teasing": "약올림",
    "non_teasing": "약올림 아님",
    "contempt": "경멸",
    "embarrassment": "당황",
    "confused": "혼란스러움",
    "shy": "수줍음",
    "unsure": "불확실",
    "face": "얼굴",
    "small": "작음",
    "blurred": "흐림",
    "dark": "어두움",
    "turned": "옆얼굴",
    "confidence": "신뢰도 낮음",
    "dropped": "누락",
    "waiting for a picture": "영상 대기 중",
}
ENGLISH = {"non_teasing": "not teasing", "confidence": "low confidence"}
WORDS = {"en": ENGLISH, "ko": KOREAN}


def word(name: str, language: str) -> str:
    """How `name` (a label, a reason, a caption) is written in `language` ("en" or "ko"); unknown names unchanged."""
    return WORDS[language].get(name, name)
