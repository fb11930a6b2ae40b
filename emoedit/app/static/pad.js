// The point of the valence-arousal pad follows pointer, arrow keys and the named buttons, and tells the server where it
// is: 'move' while it moves, 'settle' when it rests. Listeners sit on the component, whose children are drawn anew.
const find = (name) => element.querySelector(name);
const clamp = (x) => Math.max(-1, Math.min(1, x));
const round = (x) => Math.round(x * 100) / 100;
let point = { v: 0, a: 0 };
let dragging = false;
let last = 0;

const place = (mark, v, a) => {
  mark.style.left = `${50 + 50 * v}%`;
  mark.style.top = `${50 - 50 * a}%`;
};
const draw = () => {
  if (!find('.pad-knob')) return;
  place(find('.pad-knob'), point.v, point.a);
  const value = props.value || {};
  const now = find('.pad-now');
  now.hidden = !Array.isArray(value.now);
  if (!now.hidden) place(now, clamp(value.now[0]), clamp(value.now[1]));
};
// The point travels as the value: gradio repeats an event that had to wait with the event's first data, but reads values
// anew.
const tell = (event) => {
  props.value = { ...props.value, v: point.v, a: point.a };
  trigger(event);
};
const go = (v, a, settled) => {
  point = { v: round(clamp(v)), a: round(clamp(a)) };
  draw();
  const now = performance.now();
  if (settled) tell('settle');
  else if (now - last > 60) {
    last = now;
    tell('move');
  }
};
const at = (event, settled) => {
  const box = find('.pad-plane').getBoundingClientRect();
  go(((event.clientX - box.left) / box.width) * 2 - 1, 1 - ((event.clientY - box.top) / box.height) * 2, settled);
};

element.addEventListener('pointerdown', (event) => {
  if (event.target.closest('.pad-name') || !event.target.closest('.pad-plane')) return;
  dragging = true;
  element.setPointerCapture(event.pointerId);
  at(event, false);
  find('.pad-plane').focus({ preventScroll: true });
  event.preventDefault();
});
element.addEventListener('pointermove', (event) => dragging && at(event, false));
for (const end of ['pointerup', 'pointercancel'])
  element.addEventListener(end, (event) => {
    if (!dragging) return;
    dragging = false;
    at(event, true);
  });
element.addEventListener('click', (event) => {
  const name = event.target.closest('.pad-name');
  if (name) go(Number(name.dataset.v), Number(name.dataset.a), true);
});
element.addEventListener('keydown', (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1], Home: null }[event.key];
  if (step === undefined || !event.target.closest('.pad-plane') || event.target.closest('.pad-name')) return;
  event.preventDefault();
  if (step === null) go(0, 0, true);
  else go(point.v + step[0] * 0.1, point.a + step[1] * 0.1, true);
});
watch('value', () => {
  const value = props.value || {};
  if (!dragging && typeof value.v === 'number') point = { v: value.v, a: value.a };
  draw();
});
draw();
