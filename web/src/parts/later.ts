/**
 * All but the log: a chunk of its own. It is fetched while the server is asked for the log, so
 * that the log's own code is there sooner, and no later itself than the first line.
 */

export { default as ConfirmDialog } from './ConfirmDialog.svelte';
export { default as EntryDetail } from './EntryDetail.svelte';
export { default as HealthBanner } from './HealthBanner.svelte';
export { default as KeyHelp } from './KeyHelp.svelte';
export { default as Login } from './Login.svelte';
export { default as PanelHead } from './PanelHead.svelte';
export { default as RetryDialog } from './RetryDialog.svelte';
export { default as StartForm } from './StartForm.svelte';
export { default as TaskDetail } from './TaskDetail.svelte';
