// Sliders. While one is dragged the page hears `steering:drag`; `release` goes to the server when a drag or a row of
// arrow keys ends.
const KEYS_END = 350; // ms after the last arrow key
const root = h('div', { class: 'mixer' });
element.replaceChildren(root);
let pointer = false;
let pending = null;

const copy = () => JSON.parse(JSON.stringify(props.value));
const clamp = (number) => {
  const range = props.value.range;
  return Number.isFinite(number) ? Math.max(-range, Math.min(range, number)) : 0;
};
const moved = () => props.value.sliders.filter((s) => s.multiplier !== 0);
const say = (live) => tell('drag', {
  live, active: props.value.active, multipliers: Object.fromEntries(moved().map((s) => [s.slug, s.multiplier])),
});
const keep = (value) => {
  clearTimeout(pending);
  props.value = value;
  render();
};
const send = (value) => {
  keep(value);
  say(false);
  trigger('release');
};
const move = (slug, number) => {
  const slider = props.value.sliders.find((s) => s.slug === slug);
  if (!slider) return;
  slider.multiplier = number;
  props.value.active = slug;
  show(root.querySelector(`[data-row="${CSS.escape(slug)}"]`), slider);
  say(true);
};

const show = (row, slider) => {
  const range = row.querySelector('.slider-range');
  const number = row.querySelector('.slider-number');
  if (Number(range.value) !== slider.multiplier) range.value = slider.multiplier;
  if (document.activeElement !== number || Number(number.value) !== slider.multiplier) number.value = slider.multiplier;
  row.style.setProperty('--m', slider.multiplier);
  range.setAttribute('aria-valuetext', slider.multiplier ? `${signed(slider.multiplier)}` : 'off');
};
const sliderRow = (slider) => {
  const { range, step } = props.value;
  const limits = { min: -range, max: range, step, value: slider.multiplier, 'data-slug': slider.slug };
  return h('div', { class: 'slider', 'data-row': slider.slug },
    h('div', { class: 'slider-head' },
      h('label', { for: `slider-${slider.slug}`, title: slider.behavior }, slider.name),
      h('input', { ...limits, class: 'slider-number', type: 'number', id: `number-${slider.slug}`, 'aria-label': `${slider.name}: multiplier as a number` })),
    h('input', { ...limits, class: 'slider-range', type: 'range', id: `slider-${slider.slug}`,
      'aria-label': `${slider.name}: multiplier`, 'aria-describedby': `hint-${slider.slug}` }),
    h('p', { class: 'slider-hint', id: `hint-${slider.slug}` }, slider.behavior));
};
let shape = '';
const render = () => {
  const { sliders, pins, hidden } = props.value;
  const now = JSON.stringify([sliders.map((s) => [s.slug, s.name, s.behavior]), pins, hidden]);
  if (now !== shape) {
    const focused = document.activeElement && root.contains(document.activeElement) && document.activeElement.id;
    shape = now;
    root.replaceChildren(
      ...(sliders.length ? sliders.map(sliderRow)
        : [h('p', { class: 'mixer-empty' }, 'No vector on the shelf fits this model yet. Make one in the Train tab.')]),
      h('div', { class: 'mixer-buttons' },
        h('button', { type: 'button', id: 'zero-all', 'data-act': 'zero', title: 'Set every slider to 0' }, 'Zero all'),
        h('button', { type: 'button', id: 'pin-setting', 'data-act': 'pin', title: 'Keep the present setting as one more column' }, 'Pin this setting')),
      ...(pins.length || hidden.length ? [h('ul', { class: 'pins', 'aria-label': 'Pinned settings' },
        pins.map((pin, i) => h('li', {}, h('span', {}, pin.name || pin.title),
          h('button', { type: 'button', 'data-unpin': i, 'aria-label': `Remove the pin ${pin.name || pin.title}` }, '\u00d7'))),
        hidden.map((id) => h('li', { class: 'hidden-column' }, h('span', {}, `hidden: ${id}`),
          h('button', { type: 'button', 'data-show': id, 'aria-label': `Show the column ${id} again` }, 'show'))))] : []),
    );
    if (focused) document.getElementById(focused)?.focus();
  }
  for (const slider of sliders) show(root.querySelector(`[data-row="${CSS.escape(slider.slug)}"]`), slider);
};

root.addEventListener('pointerdown', (event) => { pointer = event.target.matches('.slider-range'); });
// The end of a drag is told as a `change` after the pointer is up.
for (const end of ['pointerup', 'pointercancel']) addEventListener(end, () => setTimeout(() => { pointer = false; }));
root.addEventListener('input', (event) => {
  if (event.target.matches('.slider-range')) move(event.target.dataset.slug, clamp(parseFloat(event.target.value)));
});
root.addEventListener('change', (event) => {
  if (!event.target.matches('.slider-range, .slider-number')) return;
  const number = clamp(parseFloat(event.target.value));
  event.target.value = number;
  move(event.target.dataset.slug, number);
  clearTimeout(pending);
  pending = setTimeout(() => send(copy()), pointer || event.target.matches('.slider-number') ? 0 : KEYS_END);
});
root.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || !event.target.matches('.slider-range')) return;
  send(copy());
});
const pin = (value) => {
  const setting = Object.fromEntries(moved().map((s) => [s.slug, s.multiplier]));
  const title = moved().map((s) => `${s.name} ${s.multiplier > 0 ? '+' : ''}${s.multiplier}`).join(', ');
  if (!title || value.pins.length >= value.max_pins || value.pins.some((p) => p.title === title)) return false;
  value.pins.push({ title, setting, name: '' });
  return true;
};
root.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  const value = copy();
  if (button.dataset.act === 'zero') {
    value.sliders.forEach((s) => { s.multiplier = 0; });
  } else if (button.dataset.act === 'pin') {
    if (!pin(value)) return;
  } else if (button.dataset.unpin !== undefined) {
    value.pins.splice(Number(button.dataset.unpin), 1);
  } else if (button.dataset.show !== undefined) {
    value.hidden = value.hidden.filter((id) => id !== button.dataset.show);
  } else return;
  send(value);
});
// A column's own buttons.
hear('remove', (id) => {
  const value = copy();
  const number = id.startsWith('pin:') ? Number(id.slice(4)) : -1;
  if (number >= 0) value.pins.splice(number, 1);
  else if (!value.hidden.includes(id)) value.hidden.push(id);
  send(value);
});
hear('rename', ({ id, name }) => {
  const value = copy();
  const pinned = value.pins[Number(id.slice(4))];
  if (!pinned) return;
  pinned.name = name;
  keep(value);
});
hear('set', ({ slug, multiplier }) => { // from the strip
  const value = copy();
  const slider = value.sliders.find((s) => s.slug === slug);
  if (!slider) return;
  slider.multiplier = multiplier;
  value.active = slug;
  send(value);
});
hear('who', () => say(false));
watch('value', () => { tell('shelf'); render(); say(false); });
render();
say(false);
