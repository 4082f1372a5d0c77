"""The explorer's page in a real Chromium, on a server and as static files: clicks, keys, axe, and bad input."""

import json
import re
from urllib.parse import urlencode

import pytest
from trained_models import SENTENCE, tokenizer, trained_model

from crossmask import translate_batch
from crossmask.explorer.words import source_tokens
from crossmask.streaming.text import TextStream

pytestmark = pytest.mark.browser

WORDS = SENTENCE.split()
TEXT = " ".join(WORDS[:6])
WIDTHS = (390, 768, 1280)
SCHEMES = ("light", "dark")
SCOPES = ("Encoder", "Decoder", "Cross")


def at(url: str, **fields: str) -> str:
    """The address of the page with a sentence and masks."""
    return f"{url}#{urlencode({'text': TEXT, **fields})}"


def expected(text: str = TEXT, **masks: str) -> str:
    """What the model writes."""
    return translate_batch(trained_model(), tokenizer(), [text], progress=False, num_beams=1, **masks)[0].strip()


def tokens_of(text: str = TEXT) -> list[tuple[str, int | None]]:
    """The tokens of a sentence as the page shows them, and their words."""
    return [(token.text, token.word) for token in source_tokens(tokenizer(), text)[1]]


def output(page, panel: int = 0) -> str:
    """The output of a panel, when nothing is computed any more."""
    page.wait_for_timeout(600)
    page.wait_for_selector('.output[aria-busy="true"]', state="detached")
    return page.locator(".output .text").nth(panel).inner_text().strip()


def mask_field(page, scope: str, panel: int = 0):
    return page.get_by_label(re.compile(f"^{scope} mask:")).nth(panel)


def test_it_writes_what_the_model_writes(url, open_page):
    page = open_page(at(url))
    assert output(page) == expected()
    page.get_by_label("Sentence", exact=True).last.fill(" ".join(WORDS[6:10]))
    assert output(page) == expected(" ".join(WORDS[6:10]))
    rows, columns = page.locator(".mask-grid tbody tr"), page.locator(".mask-grid thead th")
    assert rows.count() > len(output(page).split())
    assert columns.all_inner_texts() == [text for text, _ in tokens_of(" ".join(WORDS[6:10]))]


def test_every_mask_of_the_gallery_gives_what_python_gives(url, open_page):
    page = open_page(at(url))
    buttons = page.get_by_role("group", name="Gallery of masks").get_by_role("button")
    for index in range(buttons.count()):
        buttons.nth(index).click()
        assert buttons.nth(index).get_attribute("aria-pressed") == "true"
        masks = {
            f"{scope.lower()}_mask": mask_field(page, scope).input_value() for scope in ("Encoder", "Decoder", "Cross")
        }
        assert output(page) == expected(**masks), masks


def test_the_grid_shows_what_the_mask_allows(url, open_page):
    page = open_page(at(url, cross="wait_k(2)"))
    assert output(page) == expected(cross_mask="wait_k(2)")
    columns = page.locator(".mask-grid thead th").count()
    for index, row in enumerate(page.locator(".mask-grid tbody tr").all()):
        assert row.locator("td.yes").count() == min(index + 2, columns)
    page.get_by_text("Decoder", exact=True).click()
    for index, row in enumerate(page.locator(".mask-grid tbody tr").all()):
        assert row.locator("td.yes").count() == index + 1


def test_hover_lights_a_row_and_a_column(url, open_page):
    page = open_page(at(url))
    output(page)
    page.locator(".mask-grid tbody tr").nth(2).locator("td").nth(3).hover()
    assert page.locator(".mask-grid tr.lit").count() == 1
    assert page.locator(".mask-grid thead th.lit").inner_text() == tokens_of()[3][0]
    assert re.search(rf"→ {tokens_of()[3][0]}: allowed, weight \d", page.locator(".readout").inner_text())
    assert page.locator(".alignment text.lit").count() == 2
    page.get_by_role("heading", level=1).hover()
    assert page.locator(".lit").count() == 0
    page.locator('.alignment text:not([text-anchor="end"])').nth(2).hover()
    assert page.locator(".mask-grid tr.lit").count() == 1
    assert page.locator(".mask-grid thead th.lit").count() == 0


def test_the_part_at_fault_is_lit_and_the_rest_stays(url, open_page):
    page = open_page(at(url, cross="wait_k(3)"))
    before = output(page)
    field = mask_field(page, "Cross")
    field.fill("wait_k(3) & windw(2)")
    assert page.locator(".mask-input mark").inner_text() == "windw"
    assert "did you mean window?" in page.locator(".field .error").inner_text()
    assert field.get_attribute("aria-invalid") == "true"
    assert field.input_value() == "wait_k(3) & windw(2)"
    assert output(page) == before
    field.fill("wait_k(3) & window(2)")
    assert output(page) == expected(cross_mask="wait_k(3) & window(2)")
    assert page.locator(".mask-input mark").count() == 0
    field.fill("keep((2, 90))")
    assert "within the" in page.locator(".field .error").first.inner_text()


def test_hidden_words_cannot_change_the_output(url, open_page):
    page = open_page(at(url))
    before = output(page)
    words = page.get_by_role("group", name="Hide words").get_by_role("button")
    words.nth(2).click()
    assert words.nth(2).get_attribute("aria-pressed") == "true"
    hidden = [index for index, (_, word) in enumerate(tokens_of()) if word == 2]
    blind = f"blind(({hidden[0]}, {hidden[-1] + 1}))"
    assert output(page) == expected(encoder_mask=blind, cross_mask=blind) != before
    assert page.locator(".mask-grid tbody tr").first.locator("td").nth(hidden[0]).get_attribute("class") == "no"
    page.get_by_role("button", name="Replace the hidden words").click()
    page.get_by_text("The output cannot change:").wait_for()
    rows = page.locator(".facts tbody tr")
    assert rows.count() == 4
    read = [row.locator("mark").all_inner_texts() for row in rows.all()]
    assert not any(tokens_of()[position][0] in row for row in read for position in hidden)
    assert len({row.locator("td").nth(1).inner_text() for row in rows.all()[:3]}) == 1
    words.nth(2).click()
    assert output(page) == before


def test_a_stream_writes_the_output_and_says_what_each_word_waited_for(url, open_page):
    page = open_page(at(url))
    page.get_by_role("button", name="Use causal() and wait_k(3)").click()
    whole = output(page)
    page.get_by_label("Pause").select_option("none")
    page.get_by_role("button", name="Stream word by word").click()
    page.get_by_text(re.compile("^Done:")).wait_for()
    assert " ".join(page.locator(".stairs tbody th").all_inner_texts()) == whole
    waited = [int(count) for count in page.locator(".stairs .count").all_inner_texts()]
    stream = TextStream(trained_model(), tokenizer(), encoder_mask="causal()", cross_mask="wait_k(3)")
    for number, word in enumerate(TEXT.split(), start=1):
        stream.push([[word]], ended=number == len(TEXT.split()))
    assert waited == stream.delays[0]
    assert page.locator(".stairs tbody tr").first.locator("td.read").count() == waited[0]


def test_a_stream_can_be_stopped(url, open_page):
    page = open_page(at(url, encoder="causal()", cross="wait_k(1)"))
    output(page)
    page.get_by_label("Pause").select_option("long")
    page.get_by_role("button", name="Stream word by word").click()
    page.locator(".stairs").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    assert page.get_by_role("button", name="Stream word by word").is_enabled()


def test_two_masks_side_by_side(url, open_page):
    page = open_page(at(url))
    page.get_by_role("button", name="Compare two masks").click()
    output(page)
    assert page.get_by_text("A and B write the same.").is_visible()
    mask_field(page, "Cross", 1).fill("prefix(2)")
    assert (output(page, 0), output(page, 1)) == (expected(), expected(cross_mask="prefix(2)"))
    assert page.get_by_text("A and B write different texts.").is_visible()
    left, right = (page.locator(".panel").nth(index).bounding_box() for index in (0, 1))
    assert left["y"] == right["y"]
    page.set_viewport_size({"width": 390, "height": 900})
    left, right = (page.locator(".panel").nth(index).bounding_box() for index in (0, 1))
    assert right["y"] >= left["y"] + left["height"]
    link = page.url
    other = open_page(link)
    assert (output(other, 0), output(other, 1)) == (expected(), expected(cross_mask="prefix(2)"))


def test_the_audit_s_verdict(server_url, static_url, open_page):
    page = open_page(at(server_url, encoder="causal()", cross="wait_k(2)"))
    page.get_by_role("button", name="Audit this sentence").click()
    page.get_by_text("No leak.").wait_for()
    assert "audit by gradient" in page.locator(".report").inner_text()
    page = open_page(at(static_url))
    assert "It needs the server" in page.locator(".checks").inner_text()


def test_by_keyboard_alone(url, open_page):
    page = open_page(at(url))
    whole = output(page)

    def tab_to(selector: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    tab_to(".words button:nth-of-type(3)")
    page.keyboard.press("Space")
    assert output(page) != whole
    page.keyboard.press("Space")
    assert output(page) == whole
    tab_to('input[type="radio"]')
    page.keyboard.press("ArrowRight")
    assert page.locator('input[value="encoder"]').is_checked()
    page.keyboard.press("ArrowLeft")
    tab_to(".gallery button:nth-of-type(5)")
    page.keyboard.press("Enter")
    assert mask_field(page, "Cross").input_value() == "prefix(4)"
    tab_to(".mask-input textarea")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("wait_k(1)")
    assert output(page) == expected(cross_mask="wait_k(1)")
    tab_to(".mask-grid td")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    focused = page.locator(":focus")
    assert focused.get_attribute("aria-label") == "hidden"
    page.keyboard.press("ArrowLeft")
    assert page.locator(":focus").get_attribute("aria-label").startswith("allowed, weight")
    page.keyboard.press("Control+End")
    assert page.locator('.mask-grid td[tabindex="0"]').count() == 1
    page.keyboard.press("Tab")
    assert not page.evaluate('document.activeElement.matches(".mask-grid td")')


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(width, scheme, server_url, open_page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    address = at(server_url, hidden="2", compare="1", **{"b-cross": "windw(2)"})
    # Under full() the server streams nothing.
    page = open_page(address, width, allow_errors=True, color_scheme=scheme)
    output(page)
    for name in ("Replace the hidden words", "Stream word by word", "Audit this sentence"):
        page.get_by_role("button", name=name).first.click()
    page.get_by_text("The output cannot change:").first.wait_for()
    page.locator(".report, .stairs").first.wait_for()
    page.locator("summary").first.click()
    violations = axe.Axe().run(page).response["violations"]
    serious = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"]][:3])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]
    assert not serious
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(245, 246, 250)" if scheme == "light" else "rgb(17, 20, 27)"
    )


def test_motion_is_left_out_where_a_reader_asks_for_that(server_url, open_page):
    page = open_page(at(server_url), reduced_motion="reduce")
    page.locator(".busy").first.wait_for(state="attached") if page.locator(".busy").count() else None
    style = "const e = document.createElement('i'); e.className = 'busy'; document.body.append(e); "
    assert page.evaluate(f"(() => {{ {style} return getComputedStyle(e).animationName }})()") == "none"


def test_another_link_in_the_same_tab_is_shown(url, open_page):
    page = open_page(at(url, hidden="1"))
    output(page)
    page.goto(at(url, text=WORDS[0], cross="prefix(1)", compare="1"))
    assert (output(page, 0), output(page, 1)) == (expected(WORDS[0], cross_mask="prefix(1)"), expected(WORDS[0]))
    assert mask_field(page, "Cross").input_value() == "prefix(1)"
    assert page.locator('.words button[aria-pressed="true"]').count() == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "dog " * 70},
        {"cross": "keep((2, 60))"},
        {"cross": "heads({9: full()})"},
        {"cross": "~full()"},
        {"cross": "causal() & ~causal()"},
    ],
)
def test_an_output_of_another_question_is_named_as_such(fields, url, open_page):
    """Nor are its weights drawn under the masks that were refused."""
    page = open_page(at(url), allow_errors=True)
    before = output(page)
    assert page.locator(".old").count() == 0
    for name, value in fields.items():
        field = page.get_by_label("Sentence", exact=True).last if name == "text" else mask_field(page, "Cross")
        field.fill(value)
    page.locator(".old").wait_for()
    assert output(page) == before
    assert page.locator(".alignment").count() == ("text" in fields)
    assert page.get_by_role("button", name="Try again").count() == 0
    page.goto(at(url, cross="prefix(2)"))
    assert output(page) == expected(cross_mask="prefix(2)")
    assert page.locator(".old").count() == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [("dog " * 200, "must have at most"), ("dog " * 70, "at most 64 tokens"), ("  ", "must have a word")],
)
def test_sentences_that_cannot_be_used(text, reason, url, open_page):
    page = open_page(at(url), allow_errors=True)  # a status of 400 is an error of the console
    before = output(page)
    field = page.get_by_label("Sentence", exact=True).last
    field.fill(text)
    page.locator(".sentence .error", has_text=reason).wait_for()
    assert output(page) == before
    field.fill(WORDS[0])
    assert output(page) == expected(WORDS[0])
    assert page.locator(".error").count() == 0


def test_a_server_that_is_gone_and_comes_back(server_url, open_page):
    page = open_page(at(server_url), allow_errors=True)
    output(page)
    page.route("**/api/**", lambda route: route.abort())
    mask_field(page, "Cross").fill("prefix(2)")
    page.get_by_text("The connection to the server is lost.").wait_for()
    assert page.locator(".mask-grid tbody td.no").count()  # the mask is drawn all the same
    page.unroute("**/api/**")
    page.get_by_role("button", name="Try again").click()
    assert output(page) == expected(cross_mask="prefix(2)")
    assert page.locator(".error").count() == 0


def test_one_click_asks_again_for_the_sentence_and_the_output(server_url, open_page):
    page = open_page(at(server_url), allow_errors=True)
    output(page)
    page.route("**/api/**", lambda route: route.abort())
    page.get_by_label("Sentence", exact=True).last.fill(WORDS[0])
    again = page.get_by_role("button", name="Try again").first
    again.wait_for()
    page.unroute("**/api/**")
    again.click()
    page.locator(".old").wait_for(state="detached")
    assert output(page) == expected(WORDS[0])
    assert page.locator(".error").count() == 0


@pytest.mark.parametrize("status", [500, 503])
def test_an_error_of_the_server_can_be_tried_again(status, server_url, open_page):
    page = open_page(at(server_url), allow_errors=True)
    output(page)
    answer = {"status": status, "json": {"error": "the explorer failed"}}
    page.route("**/api/translate", lambda route: route.fulfill(**answer))
    mask_field(page, "Cross").fill("prefix(2)")
    page.get_by_text("the explorer failed").wait_for()
    page.unroute("**/api/translate")
    page.get_by_role("button", name="Try again").click()
    assert output(page) == expected(cross_mask="prefix(2)")


def test_a_stream_that_breaks_off(server_url, open_page):
    page = open_page(at(server_url, encoder="causal()", cross="wait_k(1)"), allow_errors=True)
    output(page)
    event = json.dumps({"read": 1, "word": WORDS[0], "written": ["dog"], "finished": False}) + "\n"
    page.route("**/api/stream", lambda route: route.fulfill(body=event, content_type="application/x-ndjson"))
    button = page.get_by_role("button", name="Stream word by word")
    button.click()
    page.get_by_text("What was written before stays; 1 of 6 words were read.").wait_for()
    assert page.locator(".stairs tbody th").all_inner_texts() == ["dog"]
    page.unroute("**/api/stream")
    button.click()
    page.get_by_text(re.compile("^Done:")).wait_for()


@pytest.mark.parametrize("file", ["model/facts.json", "model/decoder.onnx", "runtime/ort.mjs"])
def test_a_folder_that_lacks_a_part_of_the_model(file, static_url, browser, open_page):
    page = open_page("about:blank", ready=False, allow_errors=True)
    page.route(f"**/{file}", lambda route: route.fulfill(status=404, body=""))
    page.goto(at(static_url))
    problem = page.get_by_role("alert")
    problem.wait_for()
    assert "--write-static FOLDER" in problem.inner_text()
    mask_field(page, "Cross").fill("causal()")
    assert page.locator(".mask-grid tbody tr").first.locator("td.yes").count() == 1
    page.unroute(f"**/{file}")
    page.reload()
    page.locator(".output .text", has_text=re.compile(f"^{expected(cross_mask='causal()')}$")).first.wait_for()


def test_a_browser_without_simd(static_url, open_page):
    page = open_page("about:blank", ready=False, allow_errors=True)
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto(at(static_url))
    page.get_by_text("This browser has no WebAssembly SIMD").wait_for()
    mask_field(page, "Cross").fill("prefix(3)")
    assert page.locator(".mask-grid tbody tr").first.locator("td.yes").count() == 3


def test_without_javascript(url, open_page):
    page = open_page(url, ready=False, java_script_enabled=False)
    assert page.locator("noscript strong").inner_text() == "This page needs JavaScript."
    assert page.locator("noscript strong").is_visible()
