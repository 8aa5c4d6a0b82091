"""The results as a picture: a bar per row, a line where it should reach."""

from html import escape

LEFT, WIDTH, STEP, TOP = 190, 560, 34, 58
ON, OFF, REACH, TEXT, GRID = "#2f6f9f", "#a9c8de", "#c0392b", "#24292f", "#d8dee4"


def bars(rows):
    """SVG of each row's ratio, with the monitor on and, where measured, off."""
    height = TOP + STEP * len(rows) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 90}" height="{height}" '
        f'font-family="sans-serif" font-size="12" fill="{TEXT}">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="12" y="22" font-size="15" font-weight="bold">tidegate against its limit</text>',
        f'<text x="12" y="40">{legend()}</text>',
    ]
    for percent in range(0, 101, 20):
        x = LEFT + WIDTH * percent / 100
        parts.append(f'<line x1="{x}" y1="{TOP - 6}" x2="{x}" y2="{height - 28}" stroke="{GRID}"/>')
        parts.append(f'<text x="{x}" y="{height - 12}" text-anchor="middle">{percent} %</text>')
    for number, row in enumerate(rows):
        parts += bar(row, TOP + STEP * number)
    return "\n".join([*parts, "</svg>"]) + "\n"


def legend():
    return escape(
        "dark: monitor on; light: monitor off; red: the reach. Rows at one request at a time: allowed p50 ÷ p50."
    )


def bar(row, y):
    parts = [f'<text x="{LEFT - 10}" y="{y + 16}" text-anchor="end">{escape(row["row"])}</text>']
    shares = [(share(row, row[name]), colour) for name, colour in (("on", ON), ("off", OFF)) if name in row]
    thickness = 22 / len(shares)
    for place, (value, colour) in enumerate(shares):
        width = WIDTH * min(max(value, 0), 1.1)
        parts.append(f'<rect x="{LEFT}" y="{y + place * thickness}" width="{width:.1f}" height="{thickness - 1}" fill="{colour}"/>')
    parts.append(f'<text x="{LEFT + WIDTH * min(max(shares[0][0], 0), 1.1) + 6:.1f}" y="{y + 15}">{shares[0][0]:.0%}</text>')
    if row["reach"] is not None:
        x = LEFT + WIDTH * (1 if is_latency(row) else row["reach"])
        parts.append(f'<line x1="{x}" y1="{y - 3}" x2="{x}" y2="{y + 25}" stroke="{REACH}" stroke-width="2"/>')
    return parts


def is_latency(row):
    return row["measure"].startswith("µs")


def share(row, run):
    """Of the limit; for a latency, how the allowed one compares with the one found."""
    if is_latency(row):
        return (row["echo"]["p50_us"] + row["t_us"] + row["reach"]) / run["p50_us"]
    return run["reached"]
