'use strict';
// What the page does beyond being read: theme, read-outs, downloads.
const root = document.documentElement;
const asked = /^#(light|dark)$/.exec(location.hash);
if (asked) root.dataset.theme = asked[1];
document.getElementById('theme').onclick = () => {
  const dark = root.dataset.theme
    ? root.dataset.theme === 'dark'
    : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
};

const SVG = 'http://www.w3.org/2000/svg';
const readout = document.getElementById('readout');
const number = (v) =>
  Math.abs(v) >= 1e4 ? Math.round(v).toLocaleString('en') : String(+v.toPrecision(4));

// Shows what all lines of a panel say at `x`, in the panel's own coordinates.
function show(panel, x, clientX, clientY) {
  const lines = panel.lines.map((s) => {
    let best = 0;
    s.p.forEach((p, i) => { if (Math.abs(p - x) < Math.abs(s.p[best] - x)) best = i; });
    return { s, i: best, gap: Math.abs(s.p[best] - x) };
  });
  const near = lines.reduce((a, b) => (b.gap < a.gap ? b : a));
  const at = near.s.p[near.i];
  panel.at = at;
  panel.cursor.setAttribute('x1', at);
  panel.cursor.setAttribute('x2', at);
  panel.cursor.style.display = '';
  readout.replaceChildren();
  const head = document.createElement('b');
  head.textContent = `${panel.querySelector('.label').textContent}: ${number(near.s.x[near.i])}`;
  readout.append(head);
  for (const { s, i, gap } of lines) {
    if (gap > 25) continue;
    const line = document.createElement('div');
    const dot = document.createElement('i');
    line.className = 'k' + s.k;
    const low = s.l && s.l[i], high = s.h && s.h[i];
    const known = low != null && high != null;
    const interval = known ? ` [${number(low)}, ${number(high)}]` : '';
    line.append(dot, `${s.n}: ${number(s.y[i])}${interval}`);
    readout.append(line);
  }
  readout.hidden = false;
  const box = readout.getBoundingClientRect();
  const left = clientX + 16 + box.width > innerWidth ? clientX - box.width - 16 : clientX + 16;
  readout.style.left = Math.max(6, left) + 'px';
  readout.style.top = Math.max(6, Math.min(clientY + 14, innerHeight - box.height - 6)) + 'px';
}

for (const panel of document.querySelectorAll('.panel[data-plot]')) {
  panel.lines = JSON.parse(panel.dataset.plot);
  const height = panel.viewBox.baseVal.height;
  panel.cursor = document.createElementNS(SVG, 'line');
  panel.cursor.setAttribute('class', 'cursor');
  panel.cursor.setAttribute('y1', 30);
  panel.cursor.setAttribute('y2', height - 46);
  panel.cursor.style.display = 'none';
  panel.append(panel.cursor);
  const hide = () => { readout.hidden = true; panel.cursor.style.display = 'none'; };
  const point = (e) => {
    const p = new DOMPoint(e.clientX, e.clientY).matrixTransform(panel.getScreenCTM().inverse());
    show(panel, p.x, e.clientX, e.clientY);
  };
  panel.addEventListener('pointermove', point);
  panel.addEventListener('pointerdown', point);
  panel.addEventListener('pointerleave', hide);
  panel.addEventListener('blur', hide);
  panel.addEventListener('keydown', (e) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (e.key === 'Escape') hide();
    if (!way) return;
    e.preventDefault();
    const stops = [...new Set(panel.lines.flatMap((s) => s.p))].sort((a, b) => a - b);
    const now = stops.indexOf(panel.at);
    const next = now < 0 ? stops[way > 0 ? 0 : stops.length - 1]
      : stops[Math.max(0, Math.min(stops.length - 1, now + way))];
    const box = panel.getBoundingClientRect();
    show(panel, next, box.left + (next / panel.viewBox.baseVal.width) * box.width, box.top + 40);
  });
}

// One SVG of all panels in sight, with the colours of the moment written out.
function save(figure, name) {
  const panels = [...figure.querySelectorAll('.panel')].filter((p) => p.getClientRects().length);
  const columns = Math.min(3, panels.length), gap = 20;
  const width = 400, heights = panels.map((p) => p.viewBox.baseVal.height);
  const pitch = Math.max(...heights) + gap, rows = Math.ceil(panels.length / columns);
  const legend = [...figure.querySelectorAll('.legend li')];
  const top = legend.length ? 34 : 0;
  const full = [columns * (width + gap) - gap, rows * pitch - gap + top];
  const style = getComputedStyle(root);
  const css = document.querySelector('style').textContent;
  const rules = css.slice(css.indexOf('.k0 {'), css.indexOf('/* end of figure */'))
    .replaceAll(/var\((--(?!k\))[\w-]+)\)/g, (_, v) => style.getPropertyValue(v).trim());
  const paper = style.getPropertyValue('--paper').trim();
  let x = 10, body = '';
  for (const li of legend) {
    const text = li.textContent.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
    body += `<g class="panel ${li.className}"><path class="line" d="M${x} 14h22"/>` +
      `<text x="${x + 28}" y="18">${text}</text></g>`;
    x += 52 + 7.4 * li.textContent.length;
  }
  panels.forEach((panel, i) => {
    const copy = panel.cloneNode(true);
    copy.removeAttribute('data-plot');
    copy.querySelector('.cursor')?.remove();
    copy.setAttribute('x', (i % columns) * (width + gap));
    copy.setAttribute('y', top + Math.floor(i / columns) * pitch);
    copy.setAttribute('width', width);
    copy.setAttribute('height', heights[i]);
    body += new XMLSerializer().serializeToString(copy);
  });
  const size = `width="${Math.max(full[0], x)}" height="${full[1]}"`;
  const text = `<svg xmlns="${SVG}" ${size}><style>${rules}</style>` +
    `<rect width="100%" height="100%" fill="${paper}"/>${body}</svg>`;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'image/svg+xml' }));
  link.download = name + '.svg';
  link.click();
  URL.revokeObjectURL(link.href);
}
for (const button of document.querySelectorAll('.save')) {
  button.hidden = false;
  const section = button.closest('section');
  button.onclick = () => save(section.querySelector('figure'), section.id);
}
