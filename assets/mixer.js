// A drag shows its number at once and sends one event when it ends; an arrow key sends one event.
const copy = () => JSON.parse(JSON.stringify(props.value));
const clamp = (number) => {
  const range = props.value.range;
  return Number.isFinite(number) ? Math.max(-range, Math.min(range, number)) : 0;
};
const send = (value) => { props.value = value; trigger('release'); };
const setMultiplier = (slug, number) => {
  const value = copy();
  const slider = value.sliders.find((s) => s.slug === slug);
  if (!slider || slider.multiplier === number) return;
  slider.multiplier = number;
  value.active = slug;
  send(value);
};

element.addEventListener('input', (event) => {
  if (!event.target.matches('.slider-range')) return;
  const slider = event.target.closest('.slider');
  slider.querySelector('.slider-number').value = event.target.value;
  slider.style.setProperty('--m', event.target.value);
});
element.addEventListener('change', (event) => {
  if (!event.target.matches('.slider-range, .slider-number')) return;
  const number = clamp(parseFloat(event.target.value));
  event.target.value = number;
  setMultiplier(event.target.dataset.slug, number);
});
element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  const value = copy();
  if (button.dataset.act === 'zero') {
    value.sliders.forEach((s) => { s.multiplier = 0; });
  } else if (button.dataset.act === 'pin') {
    const moved = value.sliders.filter((s) => s.multiplier !== 0);
    if (!moved.length || value.pins.length >= props.max_pins) return;
    const title = moved.map((s) => `${s.name} ${s.multiplier > 0 ? '+' : ''}${s.multiplier}`).join(', ');
    if (value.pins.some((p) => p.title === title)) return;
    value.pins.push({ title, setting: Object.fromEntries(moved.map((s) => [s.slug, s.multiplier])) });
  } else if (button.dataset.unpin !== undefined) {
    value.pins.splice(Number(button.dataset.unpin), 1);
  } else return;
  send(value);
});
