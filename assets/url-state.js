// What gradio's own events run in the browser: the page's address, and what goes with a request. In the page's head;
// Python names the functions (`page_function`).
const LONGEST_URL = 6000; // characters; servers and chat programs cut longer ones
const COPIED_MS = 1500; // how long the button says so

const settingText = (pairs) => pairs.filter(([, m]) => m !== 0).map(([slug, m]) => `${slug}:${m}`).join(',');
const asParameter = (value) => (typeof value === 'boolean' ? Number(value) : value ?? 0);

// The inputs that the handlers `Handlers.write` and the like expect first: requests may overtake each other on their way,
// so each says when it was sent, and whether all answers are to be written again.
const withStamp = (fresh) => (_, ...values) => [{ fresh, sent_at: performance.timeOrigin + performance.now() }, ...values];

const steeringPage = {
  // Put all that differs from the defaults into the address. `defaults`: name in the address -> value, in the controls' order.
  writeUrl: (defaults, panel, ...controls) => {
    const query = new URLSearchParams();
    query.set('v', settingText(panel.sliders.map((s) => [s.slug, s.multiplier])));
    if (panel.active) query.set('active', panel.active);
    for (const pin of panel.pins) {
      query.append('pin', settingText(Object.entries(pin.setting)) + (pin.name ? `;${pin.name}` : ''));
    }
    for (const id of panel.hidden) query.append('hide', id);
    Object.keys(defaults).forEach((name, i) => {
      const value = asParameter(controls[i]);
      if (value !== asParameter(defaults[name])) query.set(name, value);
    });
    query.set('model', panel.model);
    const theme = new URLSearchParams(location.search).get('__theme');
    if (theme) query.set('__theme', theme);
    const long = query.toString().length >= LONGEST_URL;
    if (long) query.delete('p');
    document.querySelector('#copy-link').dataset.leftOut = long ? ', without the long prompt' : '';
    history.replaceState(null, '', `${location.pathname}?${query}`);
  },
  // The link to this state. On a Space the page lies in a frame of another address, which passes its query on to the page.
  link: () => (STEERING_SPACE ? `https://huggingface.co/spaces/${STEERING_SPACE}${location.search}` : location.href),
  copyUrl: async () => {
    const button = document.querySelector('#copy-link');
    const link = steeringPage.link();
    try {
      await navigator.clipboard.writeText(link);
      button.textContent = `Link copied${button.dataset.leftOut || ''}`;
      setTimeout(() => { button.textContent = 'Copy link'; }, COPIED_MS);
    } catch { // no permission, or no secure context; a frame of another address may open no dialog, either
      document.querySelector('#link-to-copy')?.remove();
      const field = Object.assign(document.createElement('input'), { id: 'link-to-copy', readOnly: true, value: link });
      field.setAttribute('aria-label', 'Link to copy');
      document.querySelector('#actions').after(field);
      field.select();
    }
  },
  stampGenerate: withStamp(true),
  stampUpdate: withStamp(false),
  stampStop: () => [{ fresh: false, sent_at: performance.timeOrigin + performance.now() }],
  announcePrompt: () => emit(EVENTS.promptChanged),
  focusPrompt: () => document.querySelector('#prompt textarea').focus(),
};
