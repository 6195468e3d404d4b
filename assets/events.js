// The events over which the page's scripts talk, all sent on `document` as `steering:<name>`. Before every script.
const EVENTS = {
  // sliders.js, at every step of a drag (live: true) and when a value is set -> next-token.js, answer-cards.js (the strip)
  // { live: bool, active: slug or '', multipliers: { slug: number, those other than 0 }, generation: of the model, ticket: of the visitor }
  sliderMoved: 'slider-moved',
  // next-token.js, once it can listen -> sliders.js, which answers with sliderMoved. No payload.
  slidersRequested: 'sliders-requested',
  // sliders.js, when the server sent new sliders: a vector may have changed under its name -> next-token.js. No payload.
  shelfChanged: 'shelf-changed',
  // url-state.js, when the prompt, the system prompt or the weights changed -> next-token.js. No payload.
  promptChanged: 'prompt-changed',
  // answer-cards.js, when the conversation changed -> next-token.js. The turns: [{ user: text, answers: { column id: text } }]
  turnsChanged: 'turns-changed',
  // answer-cards.js, a column's remove button -> sliders.js, which hides or unpins it. The column's id.
  columnRemoved: 'column-removed',
  // answer-cards.js, the title of a pinned column was edited -> sliders.js. { id: 'pin:<place>', name: text }
  pinRenamed: 'pin-renamed',
  // answer-cards.js, a stop of the strip was double-clicked -> sliders.js. { slug, multiplier }
  multiplierChosen: 'multiplier-chosen',
};
const emit = (name, detail) => document.dispatchEvent(new CustomEvent(`steering:${name}`, { detail }));
const listen = (name, callback) => document.addEventListener(`steering:${name}`, (event) => callback(event.detail));
